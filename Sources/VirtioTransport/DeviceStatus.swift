/// Bits of the device status field (virtio 1.2, 2.1).
enum DeviceStatus {
    static let acknowledge: UInt8 = 1
    static let driver: UInt8 = 2
    static let driverOK: UInt8 = 4
    static let featuresOK: UInt8 = 8
    static let needsReset: UInt8 = 64
    static let failed: UInt8 = 128
    /// Those that a driver sets.
    static let driverBits = acknowledge | driver | driverOK | featuresOK | failed
}
