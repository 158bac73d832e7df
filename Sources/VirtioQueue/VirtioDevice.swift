/// A device behind a virtio transport (virtio 1.2, chapter 5). Any thread may call.
public protocol VirtioDevice: AnyObject, Sendable {
    var type: VirtioDeviceType { get }
    /// For messages and traces, such as `disk0`.
    var name: String { get }
    /// What it offers, beyond what every queue here can do.
    var features: VirtioFeatures { get }
    /// The most entries of each queue, in order; at most `VirtioQueue.maximumSize`, a power of two.
    var queueSizes: [UInt16] { get }

    /// The device's configuration as it is now (virtio 1.2, 2.5).
    func configuration() -> [UInt8]
    /// The driver writes bytes to the configuration; a device ignores those that are read-only.
    func writeConfiguration(offset: Int, _ bytes: [UInt8])

    /// Who is told of interrupts and failures. To be called once, before all else.
    func connect(_ host: any VirtioHost)
    /// The driver is ready. Queues that it has not set up are nil; `features` are those both sides agreed on.
    func activate(_ queues: [VirtioQueue?], features: VirtioFeatures)
    /// The driver made buffers available in a queue, below `queueSizes.count`.
    func notify(queue: Int)
    /// Forgets the driver. `done` is called, perhaps before this returns, once the device touches guest memory no more.
    func reset(_ done: @escaping @Sendable () -> Void)
}

/// A device whose queues its driver may take away and set up anew one by one (virtio 1.2, 2.6.1).
public protocol ResettableQueues: VirtioDevice {
    /// Forgets what the driver made available in a queue. `done` is called, perhaps before this returns, once the device touches the queue
    /// and what was in it no more.
    func resetQueue(_ index: Int, _ done: @escaping @Sendable () -> Void)
    /// The driver has set up a queue that had been reset.
    func activateQueue(_ index: Int, _ queue: VirtioQueue)
}

/// What a device tells its transport. Any thread may call, with no lock of the device's queues held.
public protocol VirtioHost: AnyObject, Sendable {
    /// Buffers of a queue have been used.
    func interrupt(queue: Int)
    /// The configuration is another one now.
    func configurationChanged()
    /// The driver broke the rules: the device stands still and wants a reset.
    func deviceFailed(_ error: VirtioError)
}

/// Device IDs (virtio 1.2, chapter 5).
public enum VirtioDeviceType: UInt16, Sendable {
    case network = 1
    case block = 2
    case console = 3
    case entropy = 4
    case balloon = 5
    case vsock = 19
    case fileSystem = 26
}
