import MachineModel
import Synchronization

/// Local APICs that keep what they are sent.
final class RecordingLocalAPICBus: LocalAPICBus {
    private struct Record {
        var messages: [InterruptMessage] = []
        var levelTriggered: [Int: InterruptMessage] = [:]
        var intr = false
    }

    private let record = Mutex(Record())

    var messages: [InterruptMessage] { record.withLock { $0.messages } }
    /// Vectors of the messages, in order.
    var vectors: [UInt8] { messages.map { UInt8($0.data & 0xFF) } }
    /// By pin.
    var levelTriggered: [Int: InterruptMessage] { record.withLock { $0.levelTriggered } }
    var intr: Bool { record.withLock { $0.intr } }

    func clear() { record.withLock { $0.messages = [] } }

    func deliver(_ message: InterruptMessage) { record.withLock { $0.messages.append(message) } }
    func setExternalInterrupt(_ level: Bool) { record.withLock { $0.intr = level } }
    func setLevelTriggered(_ message: InterruptMessage?, pin: Int) {
        record.withLock { $0.levelTriggered[pin] = message }
    }
    func connect(_ source: (any InterruptSource)?) {}
}
