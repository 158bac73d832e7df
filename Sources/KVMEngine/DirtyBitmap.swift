import CDavit
import GuestMemory
import Synchronization

/// Notices KVM's guest writing to chosen pages of RAM.
protocol WriteWatch: Sendable {
    /// From now on `collect` tells of writes to the page, once.
    func watch(page: UInt64)
    /// Pages that were written to since they were watched; they are watched no more.
    func collect(_ wasWritten: (_ page: UInt64) -> Void)
}

/// By KVM's dirty log with manual protection (api.rst, 4.8, 4.117): all pages count as dirty, which costs nothing, but for those that are
/// being watched.
final class DirtyBitmap: WriteWatch {
    private struct Slot {
        let number: UInt32
        let firstPage: UInt64
        let pageCount: UInt64
        /// A bit for each page, in words of 64 as KVM has them.
        var watched: [UInt64]
        var dirty: [UInt64]
    }

    private let machine: Int32
    /// Guards what is watched, from the log's being read to its being judged.
    private let slots: Mutex<[Slot]>

    /// The machine has begun to log.
    init(_ machine: KVMVirtualMachine) {
        self.machine = machine.descriptor
        var slots: [Slot] = []
        for (number, slot) in machine.slots.enumerated() where !slot.isReadOnly {
            let pages = UInt64(slot.range.count) / GuestMemory.pageSize
            let words = [UInt64](repeating: 0, count: Int((pages + 63) / 64))
            slots.append(
                Slot(
                    number: UInt32(number), firstPage: slot.range.lowerBound / GuestMemory.pageSize, pageCount: pages,
                    watched: words, dirty: words))
        }
        self.slots = Mutex(slots)
    }

    func watch(page: UInt64) {
        slots.withLock { slots in
            for i in slots.indices where page &- slots[i].firstPage < slots[i].pageCount {
                let offset = page - slots[i].firstPage
                let word = Int(offset / 64)
                slots[i].watched[word] |= 1 << (offset % 64)
                var bitmap: UInt64 = 1 << (offset % 64)
                withUnsafeMutablePointer(to: &bitmap) { place in
                    var clear = kvm_clear_dirty_log()
                    clear.slot = slots[i].number
                    clear.first_page = UInt64(word * 64)
                    clear.num_pages = UInt32(min(64, slots[i].pageCount - UInt64(word * 64)))
                    clear.dirty_bitmap = UnsafeMutableRawPointer(place)
                    _ = davit_kvm_with(machine, DAVIT_KVM_CLEAR_DIRTY_LOG, &clear)
                }
            }
        }
    }

    func collect(_ wasWritten: (_ page: UInt64) -> Void) {
        slots.withLock { slots in
            for i in slots.indices {
                let number = slots[i].number
                slots[i].dirty.withUnsafeMutableBytes { bytes in
                    var log = kvm_dirty_log()
                    log.slot = number
                    log.dirty_bitmap = bytes.baseAddress
                    _ = davit_kvm_with(machine, DAVIT_KVM_GET_DIRTY_LOG, &log)
                }
                for word in slots[i].watched.indices {
                    var hits = slots[i].watched[word] & slots[i].dirty[word]
                    guard hits != 0 else { continue }
                    slots[i].watched[word] &= ~hits
                    while hits != 0 {
                        wasWritten(slots[i].firstPage + UInt64(word * 64 + hits.trailingZeroBitCount))
                        hits &= hits - 1
                    }
                }
            }
        }
    }
}
