import CDavit
import Glibc

/// An eventfd(2): a counter that a thread or a signal handler adds to and another thread waits for. Any thread may call.
public final class EventFD: Sendable {
    /// Readable while the counter is not zero.
    public let descriptor: Int32

    public init() throws(SystemError) {
        descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard descriptor >= 0 else { throw SystemError("eventfd") }
    }

    deinit { close(descriptor) }

    public func signal() {
        // Fails only when the counter is full, and then it is readable already.
        _ = eventfd_write(descriptor, 1)
    }

    /// Takes the counter's value and sets it to zero; 0 if nobody added to it.
    public func drain() -> UInt64 {
        var value: UInt64 = 0
        return eventfd_read(descriptor, &value) == 0 ? value : 0
    }

    /// Sleeps until the counter is not zero, or `deadline` (in milliseconds from now) passes. False on time-out.
    public func wait(milliseconds deadline: Int32 = -1) -> Bool {
        var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while true {
            let count = poll(&request, 1, deadline)
            if count >= 0 || errno != EINTR { return count > 0 }
        }
    }
}
