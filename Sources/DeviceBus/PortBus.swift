import MachineModel

/// The 16-bit I/O port space. Devices are attached before the machine starts; those with BARs may move while it runs.
public final class PortBus: Sendable {
    /// A device's place on the bus, for moving it.
    public struct Attachment: Equatable, Sendable {
        let index: Int
    }

    let map = AddressMap<any PortDevice>(space: .port, limit: 0xFFFF, hintShift: 0)

    public init() {}

    /// Lets `device` answer at `ports`. Refuses ports at which another device answers.
    @discardableResult
    public func attach(
        _ device: any PortDevice, name: String, at ports: ClosedRange<UInt16>
    ) throws(BusError) -> Attachment {
        Attachment(
            index: try map.attach(device, name: name, start: UInt64(ports.lowerBound), size: UInt64(ports.count)))
    }

    /// Gives `device` a place of `size` ports that stands nowhere until it is moved.
    public func attachUnmapped(_ device: any PortDevice, name: String, size: UInt16) throws(BusError) -> Attachment {
        Attachment(index: try map.attach(device, name: name, start: nil, size: UInt64(size)))
    }

    /// Lets the device answer from `port` on, or nowhere. When it is refused the device stays where it was.
    public func move(_ attachment: Attachment, to port: UInt16?) throws(BusError) {
        try map.move(attachment.index, to: port.map(UInt64.init))
    }

    /// Every claimed range in ascending order.
    public var claims: [(name: String, range: ClosedRange<UInt64>)] { map.claims }

    @inline(__always)
    func read(_ port: UInt16, width: AccessWidth) -> UInt32 {
        if let index = map.find(UInt64(port)), let place = map.remaining(index, UInt64(port)),
            place.count >= UInt64(width.rawValue)
        {
            let value = map.device(index).readPort(offset: UInt16(truncatingIfNeeded: place.offset), width: width)
            return value & UInt32(truncatingIfNeeded: width.mask)
        }
        return readBytes(port, width: width)
    }

    @inline(__always)
    func write(_ port: UInt16, width: AccessWidth, value: UInt32) {
        if let index = map.find(UInt64(port)), let place = map.remaining(index, UInt64(port)),
            place.count >= UInt64(width.rawValue)
        {
            map.device(index).writePort(
                offset: UInt16(truncatingIfNeeded: place.offset), width: width,
                value: value & UInt32(truncatingIfNeeded: width.mask))
            return
        }
        writeBytes(port, width: width, value: value)
    }

    /// Byte by byte: an access of which no device has all. Past the last port nothing answers.
    private func readBytes(_ port: UInt16, width: AccessWidth) -> UInt32 {
        var value: UInt32 = 0
        for step in 0..<UInt64(width.rawValue) {
            var byte: UInt32 = 0xFF
            let address = UInt64(port) &+ step
            if let index = map.find(address), let place = map.remaining(index, address) {
                byte = map.device(index).readPort(offset: UInt16(truncatingIfNeeded: place.offset), width: .one) & 0xFF
            }
            value |= byte &<< UInt32(truncatingIfNeeded: step &* 8)
        }
        return value
    }

    private func writeBytes(_ port: UInt16, width: AccessWidth, value: UInt32) {
        for step in 0..<UInt64(width.rawValue) {
            let address = UInt64(port) &+ step
            guard let index = map.find(address), let place = map.remaining(index, address) else { continue }
            map.device(index).writePort(
                offset: UInt16(truncatingIfNeeded: place.offset), width: .one,
                value: (value &>> UInt32(truncatingIfNeeded: step &* 8)) & 0xFF)
        }
    }
}
