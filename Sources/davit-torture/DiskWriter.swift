import BlockFormats
import Glibc
import HostLinux
import MachineModel
import Synchronization

/// Writes to a disk at random from several threads, as fast as it can, until it is killed.
struct DiskWriter {
    let disk: Disk
    let log: TortureLog
    private static let threads = 4
    private static let longest = 48

    func run(seed: UInt64) throws(SystemError) {
        var threads: [HostThread] = []
        let share = log.blocks / Self.threads
        for number in 0..<Self.threads {
            threads.append(
                try HostThread(name: "writer-\(number)") { [self] in
                    var random = RandomNumbers(state: seed &+ UInt64(number))
                    while true { step(number * share..<(number + 1) * share, &random) }
                })
        }
        for thread in threads { thread.join() }
    }

    private func step(_ blocks: Range<Int>, _ random: inout RandomNumbers) {
        let count = Int.random(in: 1...(Bool.random(using: &random) ? 2 : Self.longest), using: &random)
        let first = Int.random(in: blocks.lowerBound...blocks.upperBound - count, using: &random)
        let range = first..<first + count
        let offset = UInt64(first * TortureLog.blockSize)
        let length = UInt64(count * TortureLog.blockSize)
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<75:
            for block in range { log[block].begun += 1 }
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(length), alignment: 4096)
            defer { buffer.deallocate() }
            memset(buffer.baseAddress!, 0x5A, buffer.count)
            TortureLog.stamp(buffer, firstBlock: first, generations: range.map { log[$0].begun })
            let pieces = [iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)]
            perform(.write(offset: offset, from: BlockBuffers(pieces)))
            for block in range { log[block].done = log[block].begun }
        case 75..<82:
            for block in range {
                log[block].begun += 1
                log[block].zeroed = log[block].begun
            }
            perform(.writeZeroes(offset: offset, count: length, mayUnmap: .random(using: &random)))
            for block in range { log[block].done = log[block].begun }
        case 82..<90:
            // From here on anything that was ever there will do, or nothing.
            for block in range {
                log[block].flushed = 0
                log[block].done = 0
                log[block].zeroed = log[block].begun
            }
            perform(.discard(offset: offset, count: length))
        default:
            perform(.flush)
            for block in blocks { log[block].flushed = log[block].done }
        }
    }

    /// Has it done, and waits.
    private func perform(_ operation: BlockRequest.Operation) {
        guard let end = try? EventFD() else { exit(1) }
        disk.submit([
            BlockRequest(operation) { result in
                if case .failure(let error) = result {
                    print("the disk says: \(error)")
                    exit(1)
                }
                end.signal()
            }
        ])
        _ = end.wait()
    }
}

/// The same for the same seed (splitmix64).
struct RandomNumbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}
