import CDavit
import Glibc

/// A host thread with a name, as `top -H` shows it.
public final class HostThread: Sendable {
    private let handle: pthread_t

    private final class Start: Sendable {
        let name: String
        let processor: Int?
        let body: @Sendable () -> Void

        init(name: String, processor: Int?, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.processor = processor
            self.body = body
        }
    }

    /// Starts `body` on a thread of its own. `name` has at most 15 bytes; the rest is cut off. With
    /// `processor` it runs on that one of the host's alone, as long as the host lets it.
    public init(name: String, processor: Int? = nil, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        // The thread releases what is retained here.
        let start = Unmanaged.passRetained(Start(name: String(name.prefix(15)), processor: processor, body: body))
        var handle = pthread_t()
        let failure = pthread_create(
            &handle, nil,
            { raw in
                let start = Unmanaged<Start>.fromOpaque(raw.unsafelyUnwrapped).takeRetainedValue()
                davit_name_thread(start.name)
                if let processor = start.processor { _ = davit_pin_thread(Int32(processor)) }
                // Without that stack a stack overflow cannot be reported; all else works.
                _ = davit_signals_make_stack()
                start.body()
                davit_signals_drop_stack()
                return nil
            }, start.toOpaque())
        guard failure == 0 else {
            start.release()
            throw SystemError("pthread_create", code: failure)
        }
        self.handle = handle
    }

    /// Waits for the thread's end. To be called exactly once, by another thread.
    public func join() { pthread_join(handle, nil) }
}
