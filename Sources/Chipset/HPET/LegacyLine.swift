import MachineModel
import Synchronization

/// An ISA interrupt that the HPET can take over from the device that usually drives it (LegacyReplacement Route, HPET Specification 1.0a, 2.2.1).
/// As an `IRQLine` it is that device's end.
final class LegacyLine: MaskableIRQLine {
    private struct State {
        var level = false
        var isCut = false
    }

    private let line: any IRQLine
    /// Guards the device's level, and that the line follows it in order.
    private let state = Mutex(State())
    /// Guards who is told that the device is connected again; not held while it is.
    private let observer = Mutex(UnmaskObserver())

    init(_ line: any IRQLine) { self.line = line }

    func set(_ level: Bool) {
        state.withLock { state in
            state.level = level
            if !state.isCut { line.set(level) }
        }
    }

    var isMasked: Bool {
        state.withLock { $0.isCut } || (line as? any MaskableIRQLine)?.isMasked ?? false
    }

    func observeUnmasking(_ body: @escaping @Sendable () -> Void) {
        observer.withLock { $0.call = body }
        (line as? any MaskableIRQLine)?.observeUnmasking(body)
    }

    // MARK: the HPET's end

    /// Cuts the device off, or connects it again; `notify` is due afterwards.
    func setCut(_ isCut: Bool) {
        state.withLock { state in
            guard isCut != state.isCut else { return }
            state.isCut = isCut
            line.set(!isCut && state.level)
        }
    }

    /// Lets the device look at `isMasked`. To be called without locks.
    func notify() { observer.withLock { $0.call }?() }

    /// The HPET's own level while the device is cut off.
    func setOwn(_ level: Bool) {
        state.withLock { state in if state.isCut { line.set(level) } }
    }

    func pulse() {
        setOwn(true)
        setOwn(false)
    }
}
