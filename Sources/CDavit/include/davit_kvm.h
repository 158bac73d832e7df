// Linux's KVM interface (Documentation/virt/kvm/api.rst): structures from the kernel's own header; request numbers, which are macros
// that Swift does not see, as an enumeration; and the signal that fetches a thread out of KVM_RUN.
#ifndef DAVIT_KVM_H
#define DAVIT_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum davit_kvm_request {
    DAVIT_KVM_GET_API_VERSION = KVM_GET_API_VERSION,
    DAVIT_KVM_CREATE_VM = KVM_CREATE_VM,
    DAVIT_KVM_CHECK_EXTENSION = KVM_CHECK_EXTENSION,
    DAVIT_KVM_GET_VCPU_MMAP_SIZE = KVM_GET_VCPU_MMAP_SIZE,
    DAVIT_KVM_GET_SUPPORTED_CPUID = KVM_GET_SUPPORTED_CPUID,
    DAVIT_KVM_GET_MSR_INDEX_LIST = KVM_GET_MSR_INDEX_LIST,
    DAVIT_KVM_ENABLE_CAP = KVM_ENABLE_CAP,
    DAVIT_KVM_CREATE_VCPU = KVM_CREATE_VCPU,
    DAVIT_KVM_SET_USER_MEMORY_REGION = KVM_SET_USER_MEMORY_REGION,
    DAVIT_KVM_SET_TSS_ADDR = KVM_SET_TSS_ADDR,
    DAVIT_KVM_SET_IDENTITY_MAP_ADDR = KVM_SET_IDENTITY_MAP_ADDR,
    DAVIT_KVM_CREATE_IRQCHIP = KVM_CREATE_IRQCHIP,
    DAVIT_KVM_CREATE_PIT2 = KVM_CREATE_PIT2,
    DAVIT_KVM_GET_PIT2 = KVM_GET_PIT2,
    DAVIT_KVM_SET_PIT2 = KVM_SET_PIT2,
    DAVIT_KVM_GET_IRQCHIP = KVM_GET_IRQCHIP,
    DAVIT_KVM_SET_IRQCHIP = KVM_SET_IRQCHIP,
    DAVIT_KVM_IRQ_LINE = KVM_IRQ_LINE,
    DAVIT_KVM_SET_GSI_ROUTING = KVM_SET_GSI_ROUTING,
    DAVIT_KVM_SIGNAL_MSI = KVM_SIGNAL_MSI,
    DAVIT_KVM_IRQFD = KVM_IRQFD,
    DAVIT_KVM_IOEVENTFD = KVM_IOEVENTFD,
    DAVIT_KVM_GET_DIRTY_LOG = KVM_GET_DIRTY_LOG,
    DAVIT_KVM_CLEAR_DIRTY_LOG = KVM_CLEAR_DIRTY_LOG,
    DAVIT_KVM_RESET_DIRTY_RINGS = KVM_RESET_DIRTY_RINGS,
    DAVIT_KVM_GET_CLOCK = KVM_GET_CLOCK,
    DAVIT_KVM_SET_CLOCK = KVM_SET_CLOCK,
    DAVIT_KVM_RUN = KVM_RUN,
    DAVIT_KVM_GET_REGS = KVM_GET_REGS,
    DAVIT_KVM_SET_REGS = KVM_SET_REGS,
    DAVIT_KVM_GET_SREGS = KVM_GET_SREGS,
    DAVIT_KVM_SET_SREGS = KVM_SET_SREGS,
    DAVIT_KVM_GET_MSRS = KVM_GET_MSRS,
    DAVIT_KVM_SET_MSRS = KVM_SET_MSRS,
    DAVIT_KVM_SET_CPUID2 = KVM_SET_CPUID2,
    DAVIT_KVM_GET_CPUID2 = KVM_GET_CPUID2,
    DAVIT_KVM_GET_LAPIC = KVM_GET_LAPIC,
    DAVIT_KVM_SET_LAPIC = KVM_SET_LAPIC,
    DAVIT_KVM_GET_MP_STATE = KVM_GET_MP_STATE,
    DAVIT_KVM_SET_MP_STATE = KVM_SET_MP_STATE,
    DAVIT_KVM_GET_VCPU_EVENTS = KVM_GET_VCPU_EVENTS,
    DAVIT_KVM_SET_VCPU_EVENTS = KVM_SET_VCPU_EVENTS,
    DAVIT_KVM_GET_DEBUGREGS = KVM_GET_DEBUGREGS,
    DAVIT_KVM_SET_DEBUGREGS = KVM_SET_DEBUGREGS,
    DAVIT_KVM_GET_XSAVE = KVM_GET_XSAVE,
    DAVIT_KVM_GET_XSAVE2 = KVM_GET_XSAVE2,
    DAVIT_KVM_SET_XSAVE = KVM_SET_XSAVE,
    DAVIT_KVM_GET_XCRS = KVM_GET_XCRS,
    DAVIT_KVM_SET_XCRS = KVM_SET_XCRS,
    DAVIT_KVM_SET_GUEST_DEBUG = KVM_SET_GUEST_DEBUG,
    DAVIT_KVM_SET_DEVICE_ATTR = KVM_SET_DEVICE_ATTR,
    DAVIT_KVM_GET_DEVICE_ATTR = KVM_GET_DEVICE_ATTR,
    DAVIT_KVM_INTERRUPT = KVM_INTERRUPT,
    DAVIT_KVM_NMI = KVM_NMI,
};

// kvm_dirty_gfn.flags, and the page of a vCPU's mapping at which its ring begins (api.rst, 8.29).
enum { DAVIT_KVM_DIRTY_GFN_DIRTY = 1, DAVIT_KVM_DIRTY_GFN_RESET = 2, DAVIT_KVM_DIRTY_RING_PAGE = KVM_DIRTY_LOG_PAGE_OFFSET };

// ioctl(2) with a number or a structure. Its result, or -errno.
int davit_kvm(int descriptor, enum davit_kvm_request request, unsigned long argument);
int davit_kvm_with(int descriptor, enum davit_kvm_request request, const void *_Nonnull argument);

// Members of kvm_run's union: Swift would copy all of it for each.
typedef struct davit_kvm_port_exit {
    uint64_t data_offset;  // from the start of kvm_run
    uint32_t count;
    uint16_t port;
    uint8_t direction, size;
} davit_kvm_port_exit;
static inline davit_kvm_port_exit davit_kvm_port(const struct kvm_run *_Nonnull run) {
    return (davit_kvm_port_exit){run->io.data_offset, run->io.count, run->io.port, run->io.direction, run->io.size};
}
typedef struct davit_kvm_mmio_exit {
    uint64_t address;
    uint32_t size;
    uint8_t is_write;
} davit_kvm_mmio_exit;
static inline davit_kvm_mmio_exit davit_kvm_mmio(const struct kvm_run *_Nonnull run) {
    return (davit_kvm_mmio_exit){run->mmio.phys_addr, run->mmio.len, run->mmio.is_write};
}
static inline uint8_t *_Nonnull davit_kvm_mmio_data(struct kvm_run *_Nonnull run) { return run->mmio.data; }
static inline uint8_t davit_kvm_eoi_vector(const struct kvm_run *_Nonnull run) { return run->eoi.vector; }
static inline struct kvm_sync_regs *_Nonnull davit_kvm_sync_regs(struct kvm_run *_Nonnull run) { return &run->s.regs; }

// What a kick of a vCPU's thread sets, wherever that thread is.
typedef struct davit_kick_target {
    volatile uint8_t *_Nonnull immediate_exit;  // of its kvm_run: KVM_RUN returns at once, now or the next time
    // Of the software processor that stands in for it: which word takes which bits. May be null.
    volatile uint32_t *_Nullable request;
    uint32_t request_bits;
} davit_kick_target;

// Installs the signal's handler, for the life of the process. 0, or -1 with errno.
int davit_kick_prepare(void);
// The calling thread runs the vCPU of `target` from here on; null: none any more.
void davit_kick_receive(davit_kick_target *_Nullable target);
// Kicks the vCPU that `thread` runs. The thread must not have ended.
void davit_kick(pthread_t thread);
// A timer that kicks the calling thread; a number for the calls below, or -1 with errno.
int64_t davit_kick_timer_create(void);
// Kicks once in `nanoseconds`, 0: not any more.
void davit_kick_timer_set(int64_t timer, int64_t nanoseconds);
void davit_kick_timer_delete(int64_t timer);

#endif
