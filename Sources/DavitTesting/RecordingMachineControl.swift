import MachineModel
import Synchronization

/// Keeps what devices report about the machine's end.
public final class RecordingMachineControl: MachineControl {
    /// Guards the record.
    private let record = Mutex<[MachineEvent]>([])

    public init() {}

    public func report(_ event: MachineEvent) { record.withLock { $0.append(event) } }

    /// Everything reported so far, oldest first.
    public var events: [MachineEvent] { record.withLock { $0 } }

    /// Forgets the record.
    public func clear() { record.withLock { $0.removeAll() } }
}
