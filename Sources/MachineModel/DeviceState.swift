/// What a device writes into a snapshot: a plain value apart from the running device, so that its layout changes only
/// on purpose. A device that reads one back believes nothing in it before it has checked it.
public protocol DeviceState: Codable, Equatable, Sendable {
    /// The layout's version as it was written.
    var version: UInt32 { get }
    /// The version that this program writes and reads.
    static var currentVersion: UInt32 { get }
}

extension DeviceState {
    /// Throws unless the state was written in the layout that this program reads.
    public func checkVersion(of device: String) throws(InvalidDeviceState) {
        guard version == Self.currentVersion else {
            throw InvalidDeviceState(
                device, "version \(version), but this program reads version \(Self.currentVersion)")
        }
    }
}

/// A saved state in which the device could never have been. The device stays as it was.
public struct InvalidDeviceState: Error, Equatable, Sendable, CustomStringConvertible {
    public let device: String
    /// Which field, and what is wrong with it.
    public let reason: String

    public init(_ device: String, _ reason: String) {
        self.device = device
        self.reason = reason
    }

    public var description: String { "saved state of \(device): \(reason)" }
}
