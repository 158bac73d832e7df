import CDavit
import Glibc
import GuestMemory
import Synchronization

/// By KVM's dirty rings (api.rst, 8.29), one for each vCPU: KVM enters a page when it is first written to, and leaves it writable until the
/// entry is given back. So what is read costs by the pages written, not by the size of memory. Entries are given back, all together, when a
/// page among them is to be watched, or when they fill half a ring.
final class DirtyRing: WriteWatch {
    /// Of a vCPU's ring.
    static let capacity: UInt32 = 8192
    static var byteCount: Int { Int(capacity) * MemoryLayout<kvm_dirty_gfn>.stride }

    /// Entries of one vCPU. Those from `kept` to `next`, counted without end, have been read and not been given back.
    private struct Ring {
        /// Unsafe: mapped, `capacity` entries, as long as this object lives.
        let entries: UnsafeMutablePointer<kvm_dirty_gfn>
        var kept: UInt32 = 0
        var next: UInt32 = 0

        func entry(_ number: UInt32) -> UnsafeMutablePointer<kvm_dirty_gfn> {
            entries + Int(number % DirtyRing.capacity)
        }
    }

    private struct State {
        // Unchecked in effect: the rings' memory is read and written under the lock alone, but for the kernel's side.
        nonisolated(unsafe) var rings: [Ring] = []
        var watched: Set<UInt64> = []
        /// Pages whose entries are kept: KVM would not notice writes to them.
        var written: Set<UInt64> = []
    }

    private let machine: Int32
    private let slots: [KVMMemorySlot]
    /// Guards what is watched, and the rings.
    private let state = Mutex(State())

    /// Before vCPUs are made. Throws if this KVM has no such rings.
    init(_ machine: Int32, of host: KVMHost, slots: [KVMMemorySlot]) throws(KVMError) {
        self.machine = machine
        self.slots = slots
        guard host.capability(KVM_CAP_DIRTY_LOG_RING) >= Self.byteCount else {
            throw KVMError("this host's KVM has no dirty rings", mend: "leave out dirty-log=ring")
        }
        var capability = kvm_enable_cap()
        capability.cap = UInt32(KVM_CAP_DIRTY_LOG_RING)
        capability.args.0 = UInt64(Self.byteCount)
        let result = davit_kvm_with(machine, DAVIT_KVM_ENABLE_CAP, &capability)
        guard result >= 0 else { throw KVMError("KVM_CAP_DIRTY_LOG_RING", result) }
    }

    deinit { state.withLock { for ring in $0.rings { munmap(ring.entries, Self.byteCount) } } }

    /// A vCPU's ring.
    func add(vcpu: Int32) throws(KVMError) {
        let place = mmap(
            nil, Self.byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu,
            off_t(DAVIT_KVM_DIRTY_RING_PAGE) * off_t(GuestMemory.pageSize))
        guard let place, place != MAP_FAILED else { throw KVMError("mmap of a vCPU's dirty ring", -errno) }
        let ring = Ring(entries: place.bindMemory(to: kvm_dirty_gfn.self, capacity: Int(Self.capacity)))
        state.withLock { $0.rings.append(ring) }
    }

    func watch(page: UInt64) {
        state.withLock { state in
            // What KVM has yet to be asked of is a write too many at most.
            state.watched.insert(page)
            if state.written.contains(page) { giveBack(&state) }
        }
    }

    func collect(_ wasWritten: (_ page: UInt64) -> Void) {
        state.withLock { state in
            for i in state.rings.indices {
                while let page = next(&state.rings[i]) {
                    state.written.insert(page)
                    if state.watched.remove(page) != nil { wasWritten(page) }
                }
            }
            if state.rings.contains(where: { $0.next &- $0.kept > Self.capacity / 2 }) { giveBack(&state) }
        }
    }

    /// The next page that KVM has entered, by its guest physical number.
    private func next(_ ring: inout Ring) -> UInt64? {
        let entry = ring.entry(ring.next)
        guard ring.next &- ring.kept < Self.capacity,
            davit_atomic_load32_acquire(entry) == UInt32(DAVIT_KVM_DIRTY_GFN_DIRTY)
        else { return nil }
        ring.next &+= 1
        // The upper half numbers an address space, of which there is one.
        return slots[Int(entry.pointee.slot & 0xFFFF)].range.lowerBound / GuestMemory.pageSize + entry.pointee.offset
    }

    /// KVM notices writes to all pages again that were not entered after the last look.
    private func giveBack(_ state: inout State) {
        for i in state.rings.indices {
            while state.rings[i].kept != state.rings[i].next {
                let entry = state.rings[i].entry(state.rings[i].kept)
                davit_atomic_store32_release(entry, UInt32(DAVIT_KVM_DIRTY_GFN_RESET))
                state.rings[i].kept &+= 1
            }
        }
        _ = davit_kvm(machine, DAVIT_KVM_RESET_DIRTY_RINGS, 0)
        state.written.removeAll(keepingCapacity: true)
    }
}
