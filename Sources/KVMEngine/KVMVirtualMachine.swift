// One virtual machine of KVM and its memory slots (api.rst, 4.35).

import CDavit
import Glibc
import GuestMemory
import MachineModel
import Synchronization

/// A run of RAM, or of what is ROM for the guest (KVM_MEM_READONLY: the guest's writes there are KVM_EXIT_MMIO).
struct KVMMemorySlot {
    /// In guest physical addresses.
    let range: Range<UInt64>
    let isReadOnly: Bool

    /// The slots of a machine, in ascending order; a slot's number is its place.
    static func all(of memory: GuestMemory) -> [KVMMemorySlot] {
        memory.regions.flatMap { region in
            let range = region.start.rawValue..<region.end.rawValue
            let rom = GuestMemory.rom.clamped(to: range)
            let pieces = [
                KVMMemorySlot(range: range.lowerBound..<rom.lowerBound, isReadOnly: false),
                KVMMemorySlot(range: rom, isReadOnly: true),
                KVMMemorySlot(range: rom.upperBound..<range.upperBound, isReadOnly: false),
            ]
            return pieces.filter { !$0.range.isEmpty }
        }
    }
}

/// How KVM tells of pages that its guest has written to.
public enum KVMDirtyLog: String, CaseIterable, Sendable {
    case bitmap
    case ring
}

/// A machine's descriptor and what hangs on it.
final class KVMVirtualMachine: Sendable {
    let descriptor: Int32
    let memory: GuestMemory
    let slots: [KVMMemorySlot]
    /// Nil if the log is a bitmap.
    let ring: DirtyRing?
    /// Guards the slot at `spareAddress`.
    private let spareSlot = Mutex(())
    /// Guards that the log is switched on once.
    private let logsWrites = Mutex(false)
    /// KVM may hold translations of guest addresses.
    private let mayHoldTranslations = Atomic<Bool>(false)

    /// Where Intel's processors want three pages for real mode, and one more: below the firmware's place, where nothing else is.
    private static let taskStateAddress: UInt = 0xFFFB_D000
    private static let identityMapAddress: UInt64 = 0xFFFB_C000
    /// A page where nothing is.
    private static let spareAddress: UInt64 = 0xFFFB_B000

    /// `logsWrites`: from the start, which spares changing the slots later.
    init(
        _ host: KVMHost, memory: GuestMemory, dirtyLog: KVMDirtyLog = .bitmap, logsWrites: Bool
    ) throws(KVMError) {
        self.memory = memory
        slots = KVMMemorySlot.all(of: memory)
        var result: Int32
        repeat { result = davit_kvm(host.descriptor, DAVIT_KVM_CREATE_VM, 0) } while result == -EINTR
        guard result >= 0 else { throw KVMError("KVM_CREATE_VM", result) }
        descriptor = result
        do throws(KVMError) {
            ring = dirtyLog == .ring ? try DirtyRing(descriptor, of: host, slots: slots) : nil
        } catch {
            close(result)
            throw error
        }
        try require("KVM_SET_TSS_ADDR", davit_kvm(descriptor, DAVIT_KVM_SET_TSS_ADDR, Self.taskStateAddress))
        var address = Self.identityMapAddress
        try require(
            "KVM_SET_IDENTITY_MAP_ADDR", davit_kvm_with(descriptor, DAVIT_KVM_SET_IDENTITY_MAP_ADDR, &address))
        guard slots.count <= host.memorySlots else {
            throw KVMError(
                "this host's KVM has \(host.memorySlots) memory slots, too few for this machine",
                mend: "use --engine soft")
        }
        if logsWrites { try self.logWrites() } else { try setSlots(flags: 0) }
    }

    deinit { close(descriptor) }

    /// Makes the memory slots, or changes their flags.
    private func setSlots(flags: UInt32) throws(KVMError) {
        for (number, slot) in slots.enumerated() {
            var region = kvm_userspace_memory_region(
                slot: UInt32(number), flags: slot.isReadOnly ? UInt32(KVM_MEM_READONLY) : flags,
                guest_phys_addr: slot.range.lowerBound, memory_size: UInt64(slot.range.count),
                userspace_addr: UInt64(UInt(bitPattern: memory.base)) + slot.range.lowerBound)
            try require(
                "KVM_SET_USER_MEMORY_REGION", davit_kvm_with(descriptor, DAVIT_KVM_SET_USER_MEMORY_REGION, &region))
        }
    }

    /// The machine's one watch, over the log that it has.
    func makeWriteWatch() throws(KVMError) -> any WriteWatch {
        try logWrites()
        return ring ?? DirtyBitmap(self)
    }

    /// Has KVM keep a log of the guest's writes to RAM: a bitmap is under manual protection, see `DirtyBitmap`.
    private func logWrites() throws(KVMError) {
        let failure = logsWrites.withLock { logsWrites -> KVMError? in
            guard !logsWrites else { return nil }
            do throws(KVMError) {
                if ring == nil {
                    var capability = kvm_enable_cap()
                    capability.cap = UInt32(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
                    capability.args.0 = UInt64(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET)
                    try require(
                        "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
                        davit_kvm_with(descriptor, DAVIT_KVM_ENABLE_CAP, &capability))
                }
                try setSlots(flags: UInt32(KVM_MEM_LOG_DIRTY_PAGES))
            } catch {
                return error
            }
            logsWrites = true
            return nil
        }
        if let failure { throw failure }
    }

    /// Sets the guest's paravirtual clock, in nanoseconds (api.rst, 4.30).
    func setClock(_ time: UInt64) {
        var clock = kvm_clock_data()
        clock.clock = time
        // Cannot fail: no flags are given.
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_CLOCK, &clock)
    }

    // MARK: - What stand-ins need

    /// Emulation failures at any privilege level come back from KVM_RUN, instead of some as #UD to the guest.
    func reportEmulationFailures() {
        var capability = kvm_enable_cap()
        capability.cap = UInt32(KVM_CAP_EXIT_ON_EMULATION_FAILURE)
        capability.args.0 = 1
        // Without it the guest sees #UD at CPL 3, as it would without Davit.
        _ = davit_kvm_with(descriptor, DAVIT_KVM_ENABLE_CAP, &capability)
    }

    /// To be called before KVM runs guest code that is not emulated. Written to once: every vCPU comes this way each time.
    func willTranslate() {
        if !mayHoldTranslations.load(ordering: .relaxed) { mayHoldTranslations.store(true, ordering: .releasing) }
    }

    /// Has KVM forget every translation of guest addresses: its shadow page tables do not follow writes that come from outside. Taking
    /// any memory slot away does that.
    func dropTranslations() {
        guard mayHoldTranslations.load(ordering: .acquiring) else { return }
        var slot = kvm_userspace_memory_region(
            slot: UInt32(slots.count), flags: UInt32(KVM_MEM_READONLY), guest_phys_addr: Self.spareAddress,
            memory_size: GuestMemory.pageSize, userspace_addr: UInt64(UInt(bitPattern: memory.base)))
        spareSlot.withLock { _ in
            _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_USER_MEMORY_REGION, &slot)
            slot.memory_size = 0
            _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_USER_MEMORY_REGION, &slot)
        }
    }

    func require(_ request: String, _ result: Int32) throws(KVMError) {
        if result < 0 { throw KVMError(request, result) }
    }
}
