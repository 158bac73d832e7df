import DavitTesting
import Glibc
import HostLinux
import MachineModel
import Synchronization
import Testing

@testable import BlockFormats

/// A disk as a controller uses it: requests from any thread, completions on any.
@Suite(.serialized) struct DiskTests {
    let directory = try! TemporaryDirectory()

    /// Submits one request, waits, and returns why it failed, if it did.
    func perform(_ disk: Disk, _ operation: BlockRequest.Operation) throws -> BlockError? {
        let end = try EventFD()
        let outcome = Mutex<Result<Void, BlockError>?>(nil)
        disk.submit([
            BlockRequest(operation) { result in
                outcome.withLock { $0 = result }
                end.signal()
            }
        ])
        #expect(end.wait(milliseconds: 20_000), "the request does not complete")
        guard case .failure(let error) = try #require(outcome.withLock { $0 }) else { return nil }
        return error
    }

    /// A buffer that lives as long as the test.
    func buffer(_ count: Int, fill: UInt8) -> UnsafeMutableRawBufferPointer {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 4096)
        _ = memory.initializeMemory(as: UInt8.self, repeating: fill)
        return memory
    }

    @Test(
        arguments: ["raw", "qcow2"],
        [(true, CacheMode.writeback), (false, .writeback), (true, .none), (false, .unsafe)])
    func manyRequestsAtOnce(format: String, how: (usesRing: Bool, cache: CacheMode)) throws {
        let path = directory["disk.\(format)"]
        try Tool.run(["qemu-img", "create", "-q", "-f", format, path, "32M"])
        var options = DiskOptions()
        options.usesRing = how.usesRing
        options.cache = how.cache
        let disk = try Disk.open(path, options)
        defer { disk.close() }
        #expect(disk.size == 32 << 20)
        let pieces = 256
        let pieceSize = 24 << 10
        let memory = buffer(pieces * pieceSize, fill: 0)
        defer { memory.deallocate() }
        for _ in 0..<3 {
            for piece in 0..<pieces {
                let bytes = UnsafeMutableRawBufferPointer(rebasing: memory[piece * pieceSize..<(piece + 1) * pieceSize])
                _ = bytes.initializeMemory(as: UInt8.self, repeating: UInt8(truncatingIfNeeded: piece * 31 + 1))
            }
            let expected = Array(memory)
            func all(_ operation: (UInt64, BlockBuffers) -> BlockRequest.Operation) throws {
                let done = Atomic<Int>(0)
                let failed = Atomic<Int>(0)
                try withoutActuallyEscaping(operation) { operation in
                    let end = try EventFD()
                    let requests = (0..<pieces).map { piece in
                        // In two pieces, as a guest's pages are.
                        let bytes = UnsafeMutableRawBufferPointer(
                            rebasing: memory[piece * pieceSize..<(piece + 1) * pieceSize])
                        let first = iovec(iov_base: bytes.baseAddress, iov_len: 4096)
                        let rest = iovec(iov_base: bytes.baseAddress! + 4096, iov_len: pieceSize - 4096)
                        return BlockRequest(operation(UInt64(piece * 120 << 10), BlockBuffers([first, rest]))) {
                            result in
                            if case .failure = result { failed.add(1, ordering: .relaxed) }
                            if done.add(1, ordering: .acquiringAndReleasing).newValue == pieces { end.signal() }
                        }
                    }
                    disk.submit(requests)
                    #expect(
                        end.wait(milliseconds: 60_000), "\(done.load(ordering: .relaxed)) of \(pieces) have completed")
                }
                #expect(failed.load(ordering: .relaxed) == 0)
            }
            try all { .write(offset: $0, from: $1) }
            #expect(try perform(disk, .flush) == nil)
            memset(memory.baseAddress!, 0xEE, memory.count)
            try all { .read(offset: $0, into: $1) }
            #expect(Array(memory) == expected)
        }
    }

    @Test func requestsThatCannotBeFailAlone() throws {
        let path = try directory.file("disk.raw", [UInt8](repeating: 3, count: 1 << 20))
        let disk = try Disk.open(path)
        let memory = buffer(4096, fill: 0)
        defer { memory.deallocate() }
        let buffers = BlockBuffers(memory)
        for offset in [1 << 20, (1 << 20) - 512, 1 << 63, UInt64.max - 511, 100] as [UInt64] {
            #expect(try perform(disk, .read(offset: offset, into: buffers)) == .outOfRange)
            #expect(try perform(disk, .write(offset: offset, from: buffers)) == .outOfRange)
            #expect(try perform(disk, .discard(offset: offset, count: 1024)) == .outOfRange)
        }
        for count in [UInt64.max, UInt64.max - 511, 1 << 63, 513, (1 << 20) + 512] as [UInt64] {
            #expect(try perform(disk, .writeZeroes(offset: 512, count: count, mayUnmap: true)) == .outOfRange)
            #expect(try perform(disk, .discard(offset: 512, count: count)) == .outOfRange)
        }
        #expect(try perform(disk, .read(offset: 0, into: buffers)) == nil)
        #expect(Array(memory) == [UInt8](repeating: 3, count: 4096))
        disk.close()
        #expect(try perform(disk, .flush) == .closed)
    }

    @Test func oneDiskIsWrittenByOneMachineOnly() throws {
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"])
        let disk = try Disk.open(path)
        var readOnly = DiskOptions()
        readOnly.isReadOnly = true
        #expect(throws: DiskError.self) { try Disk.open(path) }
        let error = #expect(throws: DiskError.self) { try Disk.open(path, readOnly) }
        #expect(
            error?.description
                == "\(path): somebody else writes to it: end the machine or program that has it, or work on a copy")
        // QEMU takes part in it.
        #expect(try Tool.start(["qemu-io", "-c", "write 0 512", path]).status != 0)
        disk.close()
    }

    @Test func anyNumberMayReadADisk() throws {
        let path = try directory.file("disk.raw", [UInt8](repeating: 0, count: 4096))
        var options = DiskOptions()
        options.isReadOnly = true
        let one = try Disk.open(path, options)
        let two = try Disk.open(path, options)
        #expect(throws: DiskError.self) { try Disk.open(path) }
        let memory = buffer(512, fill: 1)
        defer { memory.deallocate() }
        #expect(try perform(one, .write(offset: 0, from: BlockBuffers(memory))) == .readOnly)
        #expect(try perform(two, .writeZeroes(offset: 0, count: 512, mayUnmap: false)) == .readOnly)
        #expect(try perform(two, .discard(offset: 0, count: 512)) == .readOnly)
        one.close()
        two.close()
    }

    @Test func ratesAreKept() throws {
        let path = try directory.file("disk.raw", [UInt8](repeating: 0, count: 1 << 20))
        var options = DiskOptions()
        options.limits.operations = 200
        let disk = try Disk.open(path, options)
        let memory = buffer(4096, fill: 1)
        defer { memory.deallocate() }
        let start = WorkerPool.now
        let end = try EventFD()
        let left = Atomic<Int>(100)
        disk.submit(
            (0..<100).map { _ in
                BlockRequest(.read(offset: 0, into: BlockBuffers(memory))) { _ in
                    if left.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 { end.signal() }
                }
            })
        #expect(end.wait(milliseconds: 20_000))
        let seconds = Double(WorkerPool.now - start) / 1e9
        // 100 of them, of which a tenth of a second's worth is free.
        #expect(seconds > 0.35 && seconds < 5, "\(seconds) s")
        disk.close()
    }

    @Test func aLimitOfNextToNothingDoesNotOverflow() {
        var limits = RateLimits()
        limits.bytes = 1
        var limiter = RateLimiter(limits)
        for _ in 0..<100 { _ = limiter.admit(bytes: Int(Int32.max), now: 1 << 62) }
        #expect(limiter.admit(bytes: 1, now: 1 << 62) == .max)
    }

    @Test func closingWaitsForWhatIsUnderWay() throws {
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"])
        var options = DiskOptions()
        options.limits.operations = 1
        let disk = try Disk.open(path, options)
        let memory = buffer(65536, fill: 0x77)
        defer { memory.deallocate() }
        let done = Atomic<Int>(0)
        disk.submit(
            (0..<50).map { number in
                BlockRequest(.write(offset: UInt64(number << 20), from: BlockBuffers(memory))) { _ in
                    done.add(1, ordering: .relaxed)
                }
            })
        disk.close()
        #expect(done.load(ordering: .relaxed) == 50)
        #expect(try Tool.start(["qemu-img", "check", "-q", path]).status == 0)
        #expect(
            try Tool.start(["qemu-io", "-r", "-c", "read -P 0x77 49M 64k", path]).output.contains("verification failed")
                == false)
    }

    @Test func aFullHostGivesErrorsAndNoDamage() throws {
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"])
        let disk = try Disk.open(path)
        let memory = buffer(256 << 10, fill: 0x42)
        defer { memory.deallocate() }
        // A file may grow to 4 MiB from here on.
        var old = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &old)
        let handler = signal(SIGXFSZ, SIG_IGN)
        var new = rlimit(rlim_cur: 4 << 20, rlim_max: old.rlim_max)
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &new)
        var written = 0
        var failures = 0
        for number in 0..<64 {
            if let error = try perform(disk, .write(offset: UInt64(number) << 20, from: BlockBuffers(memory))) {
                #expect(error == .noSpace)
                failures += 1
            } else {
                written += 1
            }
        }
        _ = try perform(disk, .flush)
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &old)
        signal(SIGXFSZ, handler)
        #expect(written > 8 && failures > 8)
        // There is room again, and the guest goes on.
        #expect(try perform(disk, .write(offset: 63 << 20, from: BlockBuffers(memory))) == nil)
        #expect(try perform(disk, .flush) == nil)
        disk.close()
        let (status, output) = try Tool.start(["qemu-img", "check", path])
        #expect(status == 0, "\(output)")
        #expect(
            try Tool.start(["qemu-io", "-r", "-c", "read -P 0x42 63M 256k", path]).output.contains(
                "verification failed") == false)
    }
}
