import Synchronization

/// Work that one thread at a time does for all: who comes while it is being done leaves it to that thread, which then goes around once
/// more. So a completion that finds more to do does not go deeper and deeper.
public final class SharedWork: Sendable {
    private struct State {
        var isRunning = false
        /// Somebody came meanwhile.
        var isWanted = false
    }

    /// Guards who is at it; not held while the work is done.
    private let state = Mutex(State())

    public init() {}

    public func run(_ body: () -> Void) {
        let isFirst = state.withLock { state in
            state.isWanted = state.isRunning
            defer { state.isRunning = true }
            return !state.isRunning
        }
        guard isFirst else { return }
        var isWanted = true
        while isWanted {
            body()
            isWanted = state.withLock { state in
                defer { state.isWanted = false }
                state.isRunning = state.isWanted
                return state.isWanted
            }
        }
    }
}
