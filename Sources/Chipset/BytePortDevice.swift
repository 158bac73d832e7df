import MachineModel

/// A chip on an eight-bit bus: a wide access reaches it as bytes at consecutive ports, lowest first.
protocol BytePortDevice: PortDevice {
    func readByte(offset: UInt16) -> UInt8
    func writeByte(offset: UInt16, value: UInt8)
}

extension BytePortDevice {
    public func readPort(offset: UInt16, width: AccessWidth) -> UInt32 {
        var value = UInt32(readByte(offset: offset))
        for step in 1..<max(1, UInt16(width.rawValue)) {
            value |= UInt32(readByte(offset: offset &+ step)) &<< (8 &* UInt32(step))
        }
        return value
    }

    public func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {
        for step in 0..<UInt16(width.rawValue) {
            writeByte(offset: offset &+ step, value: UInt8(truncatingIfNeeded: value &>> (8 &* UInt32(step))))
        }
    }
}
