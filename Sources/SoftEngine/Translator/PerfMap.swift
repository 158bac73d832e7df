import Glibc
import HostLinux
import Synchronization

/// `/tmp/perf-PID.map`, from which Linux's perf takes names for code made at run time: a line `START SIZE NAME` for each unit
/// (Linux, tools/perf/Documentation/jit-interface.txt). Any thread may call.
public final class PerfMap: Sendable {
    private let descriptor: Int32
    /// Lines not yet written; guarded so that lines stay whole.
    private let lines = Mutex<[UInt8]>([])
    private static let batch = 1 << 16

    public init() throws(SystemError) {
        descriptor = open("/tmp/perf-\(getpid()).map", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw SystemError("open") }
    }

    deinit {
        lines.withLock { write(&$0) }
        close(descriptor)
    }

    /// Names `size` bytes at `start` by the guest code that they stand for.
    func add(start: UInt, size: Int, rip: UInt64, isKernel: Bool) {
        let line =
            "\(String(start, radix: 16)) \(String(size, radix: 16)) \(isKernel ? "kernel" : "user")_\(String(rip, radix: 16))\n"
        lines.withLock { lines in
            lines.append(contentsOf: line.utf8)
            if lines.count >= Self.batch { write(&lines) }
        }
    }

    private func write(_ lines: inout [UInt8]) {
        // A map that cannot be written is not worth stopping a guest for.
        _ = lines.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        lines.removeAll(keepingCapacity: true)
    }
}
