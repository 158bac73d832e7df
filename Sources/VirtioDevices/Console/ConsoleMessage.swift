/// A message on a console's control queues (virtio 1.2, 5.3.6.2): a port's number, what it is about, and a value.
struct ConsoleMessage {
    static let size = 8

    enum Event: UInt16 {
        case deviceReady = 0
        case deviceAdd = 1
        case deviceRemove = 2
        case portReady = 3
        case consolePort = 4
        case resize = 5
        case portOpen = 6
        case portName = 7
    }

    var port: UInt32
    var event: Event
    var value: UInt16 = 0
    /// What follows it: a name, or a size.
    var payload: [UInt8] = []

    /// Nil for an event that there is not, or too few bytes.
    init?(_ bytes: [UInt8]) {
        guard bytes.count >= Self.size, let event = Event(rawValue: UInt16(bytes[4]) | UInt16(bytes[5]) << 8) else {
            return nil
        }
        port = bytes[..<4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        self.event = event
        value = UInt16(bytes[6]) | UInt16(bytes[7]) << 8
    }

    init(port: Int, _ event: Event, value: UInt16 = 0, payload: [UInt8] = []) {
        self.port = UInt32(port)
        self.event = event
        self.value = value
        self.payload = payload
    }

    var bytes: [UInt8] {
        var fields = ConfigurationWriter()
        fields.append(port)
        fields.append(event.rawValue)
        fields.append(value)
        return fields.bytes + payload
    }
}
