import MachineModel
import Synchronization

/// Local APICs that keep what they are sent.
final class RecordingLocalAPICBus: LocalAPICBus {
    private let record = Mutex<(messages: [InterruptMessage], intr: Bool)>(([], false))

    var messages: [InterruptMessage] { record.withLock { $0.messages } }
    /// Vectors of the messages, in order.
    var vectors: [UInt8] { messages.map { UInt8($0.data & 0xFF) } }
    var intr: Bool { record.withLock { $0.intr } }

    func clear() { record.withLock { $0.messages = [] } }

    func deliver(_ message: InterruptMessage) { record.withLock { $0.messages.append(message) } }
    func setExternalInterrupt(_ level: Bool) { record.withLock { $0.intr = level } }
    func connect(_ source: (any InterruptSource)?) {}
}
