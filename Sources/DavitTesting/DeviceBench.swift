import GuestMemory
import Synchronization
import VirtioQueue

/// A device with queues that the test serves by hand, and its transport's part.
public final class DeviceBench: VirtioHost {
    public let memory: GuestMemory
    public let device: any VirtioDevice
    public let queues: [GuestQueue]

    private struct Record {
        var interrupts: [Int] = []
        var configurationChanges = 0
        var failures: [VirtioError] = []
    }

    private let record = Mutex(Record())
    public var interrupts: [Int] { record.withLock { $0.interrupts } }
    public var configurationChanges: Int { record.withLock { $0.configurationChanges } }
    public var failures: [VirtioError] { record.withLock { $0.failures } }

    /// Connects and activates the device with `size` entries in each queue.
    public init(
        _ device: any VirtioDevice, memory: GuestMemory = try! GuestMemory(size: 8 << 20), size: UInt16 = 16,
        isPacked: Bool = false, without refused: VirtioFeatures = []
    ) {
        self.device = device
        self.memory = memory
        queues = device.queueSizes.indices.map {
            GuestQueue(
                memory, at: 0x1000 + UInt64($0) * GuestQueue.footprint(size: size), size: size, isPacked: isPacked)
        }
        device.connect(self)
        activate(without: refused)
    }

    /// Agrees on all features but those refused.
    public func activate(without refused: VirtioFeatures = []) {
        var features = device.features.union([.version1, .indirectDescriptors]).subtracting(refused)
        if queues[0].isPacked { features.insert(.packedRing) }
        let rings = queues.map { queue in
            try! VirtioQueue(
                QueueSetup(
                    size: queue.size, descriptorArea: queue.descriptorArea, driverArea: queue.driverArea,
                    deviceArea: queue.deviceArea), features: features, memory: memory)
        }
        device.activate(rings, features: features)
    }

    /// Takes a queue back. True if the device let go of it at once.
    public func resetQueue(_ index: Int) -> Bool {
        guard let device = device as? any ResettableQueues else { return true }
        let isDone = Flag()
        device.resetQueue(index) { isDone.set() }
        return isDone.isSet
    }

    public func interrupt(queue: Int) { record.withLock { $0.interrupts.append(queue) } }
    public func configurationChanged() { record.withLock { $0.configurationChanges += 1 } }

    public func deviceFailed(_ error: VirtioError) { record.withLock { $0.failures.append(error) } }

    public func put(_ bytes: [UInt8], at address: UInt64) {
        try! memory.write(bytes: bytes, at: GuestPhysicalAddress(address))
    }

    public func put<Value: BitwiseCopyable>(_ value: Value, at address: UInt64) {
        try! memory.write(value, at: GuestPhysicalAddress(address))
    }

    public func bytes(at address: UInt64, _ count: Int) -> [UInt8] {
        try! memory.readBytes(at: GuestPhysicalAddress(address), count: count)
    }
}

/// Something that has happened, or not yet.
public final class Flag: Sendable {
    private let value = Atomic<Bool>(false)

    public init() {}

    public var isSet: Bool { value.load(ordering: .acquiring) }
    public func set() { value.store(true, ordering: .releasing) }
}
