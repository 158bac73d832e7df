import Glibc

/// How long a thread has been ready to run and had no processor, because the host ran others there.
public final class ProcessorWait: Sendable {
    private let file: Int32

    /// Of the calling thread. Nil if the host does not count it (Linux without CONFIG_SCHED_INFO).
    public init?() {
        file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)
        if file < 0 || nanoseconds == nil { return nil }
    }

    deinit { if file >= 0 { close(file) } }

    /// Linux, Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat: the second of three numbers. Nil once the thread has ended.
    public var nanoseconds: UInt64? {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 96) { buffer in
            let count = pread(file, buffer.baseAddress, buffer.count, 0)
            guard count > 0 else { return nil }
            var field = 0
            var value: UInt64 = 0
            for byte in buffer.prefix(count) {
                if byte == 0x20 || byte == 0x0A {
                    field += 1
                } else if field == 1 {
                    guard byte >= 0x30, byte <= 0x39 else { return nil }
                    value = value &* 10 &+ UInt64(byte - 0x30)
                }
            }
            return field >= 2 ? value : nil
        }
    }
}
