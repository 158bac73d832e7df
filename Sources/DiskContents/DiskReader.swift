import Glibc
import HostLinux
import MachineModel
import Synchronization

/// Reads what is on a disk, while the guest does not run. Every number that says where is checked.
struct DiskReader: Sendable {
    private let disk: any BlockDevice
    /// Bytes of the disk that are in reach.
    let range: Range<UInt64>

    init(_ disk: any BlockDevice) {
        self.disk = disk
        range = 0..<disk.size
    }

    private init(_ disk: any BlockDevice, _ range: Range<UInt64>) {
        self.disk = disk
        self.range = range
    }

    var size: UInt64 { range.upperBound - range.lowerBound }

    /// The part of `count` bytes from `offset` on; nil if it is not all there.
    func part(at offset: UInt64, count: UInt64) -> DiskReader? {
        guard count > 0, offset <= size, count <= size - offset else { return nil }
        let start = range.lowerBound + offset
        return DiskReader(disk, start..<start + count)
    }

    /// Fills `buffer` with the bytes from `offset` on.
    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(DiskContentsError) {
        guard offset <= size, UInt64(buffer.count) <= size - offset else { throw .damaged("something past its end") }
        guard buffer.count > 0 else { return }
        let start = range.lowerBound + offset
        let unit = UInt64(disk.blockSize)
        let first = start & ~(unit - 1)
        let end = (start + UInt64(buffer.count) + unit - 1) & ~(unit - 1)
        guard first == start, end == start + UInt64(buffer.count) else {
            // The disk moves whole blocks only.
            let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(end - first), alignment: 4096)
            defer { whole.deallocate() }
            try move(from: first, into: whole)
            let skip = Int(start - first)
            buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: whole[skip..<skip + buffer.count]))
            return
        }
        try move(from: start, into: buffer)
    }

    func read(at offset: UInt64, count: Int) throws(DiskContentsError) -> [UInt8] {
        var failure: DiskContentsError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            let raw = UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: count)
            do throws(DiskContentsError) {
                try read(at: offset, into: raw)
                initialized = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    private final class Answer: Sendable {
        /// Guards the result; nil until there is one.
        let result = Mutex<Result<Void, BlockError>?>(nil)
    }

    private func move(from start: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(DiskContentsError) {
        let answer = Answer()
        let done: EventFD
        do throws(SystemError) { done = try EventFD() } catch { throw .unreadable("\(error)") }
        // Safe: the buffer stays where it is until the request has completed, which is waited for.
        let buffers = BlockBuffers([iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)])
        disk.submit([
            BlockRequest(.read(offset: start, into: buffers)) { result in
                answer.result.withLock { $0 = result }
                done.signal()
            }
        ])
        while done.drain() == 0 { _ = done.wait() }
        if case .failure(let error) = answer.result.withLock({ $0 }) { throw .unreadable("\(error)") }
    }
}
