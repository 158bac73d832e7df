/// Feature bits, the driver's and the device's (virtio 1.2, chapter 6 for those that every device may have).
public struct VirtioFeatures: OptionSet, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Bit `number` of a device's own.
    public init(bit number: UInt64) { rawValue = 1 << number }

    public static let indirectDescriptors = VirtioFeatures(bit: 28)
    public static let eventIndex = VirtioFeatures(bit: 29)
    public static let version1 = VirtioFeatures(bit: 32)
    public static let packedRing = VirtioFeatures(bit: 34)
    /// Buffers are used in the order in which they were made available.
    public static let inOrder = VirtioFeatures(bit: 35)
    public static let notificationData = VirtioFeatures(bit: 38)
    /// Single queues can be reset; for devices that are `ResettableQueues`.
    public static let ringReset = VirtioFeatures(bit: 40)
}
