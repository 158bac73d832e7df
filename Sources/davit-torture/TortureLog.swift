import Glibc
import HostLinux
import MachineModel

/// What the writer has asked of each block, in a file that both processes have mapped: it outlives the writer's sudden end.
final class TortureLog: @unchecked Sendable {
    static let blockSize = 4096
    static let sectorSize = 512

    /// Of one block; generations count the writes to it.
    struct Record {
        /// The newest write that was begun.
        var begun: UInt64 = 0
        /// The newest write that a flush covers; nothing older may be read.
        var flushed: UInt64 = 0
        /// The newest write of zeros.
        var zeroed: UInt64 = 0
        /// What a flush would cover now.
        var done: UInt64 = 0
    }

    let blocks: Int
    // Safe to share: each block's record belongs to one thread of the writer; the checker looks when the writer is gone.
    private let records: UnsafeMutablePointer<Record>

    init(path: String, blocks: Int) throws(SystemError) {
        self.blocks = blocks
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw SystemError("open") }
        defer { close(descriptor) }
        let size = blocks * MemoryLayout<Record>.stride
        guard ftruncate(descriptor, off_t(size)) == 0 else { throw SystemError("ftruncate") }
        let mapped = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let mapped, mapped != MAP_FAILED else { throw SystemError("mmap") }
        // Safe: the mapping has room for so many, and zeros are good records. It lives as long as the process.
        records = mapped.bindMemory(to: Record.self, capacity: blocks)
    }

    subscript(block: Int) -> Record {
        get { records[block] }
        set { records[block] = newValue }
    }

    /// Begins every sector with its block, counted from 1, and the write.
    static func stamp(_ buffer: UnsafeMutableRawBufferPointer, firstBlock: Int, generations: [UInt64]) {
        for sector in 0..<buffer.count / sectorSize {
            let number = sector * sectorSize / blockSize
            buffer.storeBytes(of: UInt64(firstBlock + number) + 1, toByteOffset: sector * sectorSize, as: UInt64.self)
            buffer.storeBytes(of: generations[number], toByteOffset: sector * sectorSize + 8, as: UInt64.self)
        }
    }

    /// What is wrong with a block that was read after the writer's end, if anything.
    func objection(_ block: Int, _ bytes: UnsafeRawBufferPointer) -> String? {
        let record = records[block]
        for offset in stride(from: 0, to: Self.blockSize, by: Self.sectorSize) {
            let name = bytes.load(fromByteOffset: offset, as: UInt64.self)
            let generation = bytes.load(fromByteOffset: offset + 8, as: UInt64.self)
            if name == 0 && generation == 0 {
                if record.zeroed >= record.flushed { continue }
                return "block \(block) is empty, though write \(record.flushed) was flushed"
            }
            guard name == UInt64(block) + 1 else {
                return "block \(block) holds what belongs to block \(Int64(name) - 1)"
            }
            guard generation >= record.flushed, generation <= record.begun else {
                return "block \(block) holds write \(generation), not \(record.flushed) to \(record.begun)"
            }
        }
        return nil
    }
}
