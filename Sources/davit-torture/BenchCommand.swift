import ArgumentParser
import BlockFormats
import Glibc
import HostLinux
import MachineModel
import Synchronization

/// Requests a second, as `qemu-img bench` measures them of the same file.
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Read or write an image with many requests at once, and tell how fast that is.")

    @Argument(help: "The image; with --write its contents are lost.")
    var image: String
    @Flag(help: "Write instead.")
    var write = false
    @Flag(help: "One place after the other.")
    var sequential = false
    @Option(help: "Bytes of a request.")
    var size = 4096
    @Option(help: "Requests at once.")
    var depth = 32
    @Option(help: "Requests in all.")
    var count = 200_000
    @Option(help: "writeback, none or unsafe.")
    var cache = "writeback"
    @Flag(inversion: .prefixedNo, help: "Use io_uring.")
    var ring = true

    /// Buffers whose request has ended.
    private final class Free: Sendable {
        let buffers: Mutex<[BlockBuffers]>
        let wakeup: EventFD
        let failures = Atomic<Int>(0)

        init(_ buffers: [BlockBuffers]) throws {
            self.buffers = Mutex(buffers)
            wakeup = try EventFD()
        }
    }

    /// Keeps `depth` requests under way until `count` have ended.
    private func measure(_ disk: Disk) throws {
        let free = try Free(
            (0..<depth).map { _ in
                let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
                _ = memory.initializeMemory(as: UInt8.self, repeating: 0x5A)
                return BlockBuffers([iovec(iov_base: memory.baseAddress, iov_len: memory.count)])
            })
        let slots = disk.size / UInt64(size)
        var begun = 0
        while true {
            let ready = free.buffers.withLock { ready in
                defer { ready = [] }
                return ready
            }
            if begun == count && ready.count == depth { break }
            var requests: [BlockRequest] = []
            for buffers in ready {
                guard begun < count else {
                    free.buffers.withLock { $0.append(buffers) }
                    continue
                }
                let place = sequential ? UInt64(begun) % slots : UInt64(begun) &* 0x9E37_79B9_7F4A_7C15 % slots
                begun += 1
                let offset = place * UInt64(size)
                requests.append(
                    BlockRequest(write ? .write(offset: offset, from: buffers) : .read(offset: offset, into: buffers)) {
                        result in
                        if case .failure = result { free.failures.add(1, ordering: .relaxed) }
                        free.buffers.withLock { $0.append(buffers) }
                        free.wakeup.signal()
                    })
            }
            disk.submit(requests)
            if free.buffers.withLock({ $0.isEmpty || begun == count && $0.count < depth }) {
                _ = free.wakeup.wait(milliseconds: 10)
                _ = free.wakeup.drain()
            }
        }
        guard free.failures.load(ordering: .relaxed) == 0 else { throw ValidationError("requests failed") }
    }

    func run() throws {
        var options = DiskOptions()
        options.isReadOnly = !write
        options.usesRing = ring
        options.cache = CacheMode(rawValue: cache) ?? .writeback
        let disk = try Disk.open(image, options)
        var start = timespec()
        var end = timespec()
        clock_gettime(CLOCK_MONOTONIC, &start)
        try measure(disk)
        clock_gettime(CLOCK_MONOTONIC, &end)
        let seconds = Double(end.tv_sec - start.tv_sec) + Double(end.tv_nsec - start.tv_nsec) / 1e9
        disk.close()
        print("\(Int(Double(count) / seconds)) requests/s, \(Int(Double(count * size) / seconds / 1e6)) MB/s")
    }
}
