import GuestMemory
import MachineModel

/// Devices in guest physical address space. They are attached before the machine starts; those with BARs may move while
/// it runs. The engine asks here only for addresses that are not RAM.
public final class MMIOBus: Sendable {
    /// A device's place on the bus, for moving it.
    public struct Attachment: Equatable, Sendable {
        let index: Int
    }

    let map = AddressMap<any MMIODevice>(space: .mmio, limit: UInt64.max, hintShift: 12)

    public init() {}

    /// Lets `device` answer for `size` bytes from `start`. Refuses addresses at which another device answers.
    @discardableResult
    public func attach(
        _ device: any MMIODevice, name: String, at start: GuestPhysicalAddress, size: UInt64
    ) throws(BusError) -> Attachment {
        Attachment(index: try map.attach(device, name: name, start: start.rawValue, size: size))
    }

    /// Gives `device` a place of `size` bytes that stands nowhere until it is moved.
    public func attachUnmapped(_ device: any MMIODevice, name: String, size: UInt64) throws(BusError) -> Attachment {
        Attachment(index: try map.attach(device, name: name, start: nil, size: size))
    }

    /// Lets the device answer from `start` on, or nowhere. When it is refused the device stays where it was.
    public func move(_ attachment: Attachment, to start: GuestPhysicalAddress?) throws(BusError) {
        try map.move(attachment.index, to: start?.rawValue)
    }

    /// Every claimed range in ascending order.
    public var claims: [(name: String, range: ClosedRange<UInt64>)] { map.claims }

    @inline(__always)
    func read(_ address: UInt64, width: AccessWidth) -> UInt64 {
        if let index = map.find(address), let place = map.remaining(index, address),
            place.count >= UInt64(width.rawValue)
        {
            return map.device(index).readMMIO(offset: place.offset, width: width) & width.mask
        }
        return readBytes(address, width: width)
    }

    @inline(__always)
    func write(_ address: UInt64, width: AccessWidth, value: UInt64) {
        if let index = map.find(address), let place = map.remaining(index, address),
            place.count >= UInt64(width.rawValue)
        {
            map.device(index).writeMMIO(offset: place.offset, width: width, value: value & width.mask)
            return
        }
        writeBytes(address, width: width, value: value)
    }

    /// Byte by byte: an access of which no device has all.
    private func readBytes(_ start: UInt64, width: AccessWidth) -> UInt64 {
        var value: UInt64 = 0
        for step in 0..<UInt64(width.rawValue) {
            var byte: UInt64 = 0xFF
            let address = start &+ step
            if let index = map.find(address), let place = map.remaining(index, address) {
                byte = map.device(index).readMMIO(offset: place.offset, width: .one) & 0xFF
            }
            value |= byte &<< (step &* 8)
        }
        return value
    }

    private func writeBytes(_ start: UInt64, width: AccessWidth, value: UInt64) {
        for step in 0..<UInt64(width.rawValue) {
            let address = start &+ step
            guard let index = map.find(address), let place = map.remaining(index, address) else { continue }
            map.device(index).writeMMIO(offset: place.offset, width: .one, value: (value &>> (step &* 8)) & 0xFF)
        }
    }
}
