import GuestMemory
import Synchronization
import VirtioQueue

/// How a transport interrupts its driver. Called with no lock held.
protocol VirtioInterrupts: AnyObject, Sendable {
    /// `vector` is what the driver has chosen for the queue, or `VirtioRegisters.noVector`.
    func queueInterrupt(vector: UInt16)
    func configurationInterrupt(vector: UInt16)
}

/// What all transports have in common: a device's status, features and queues as its driver sets them (virtio 1.2, 2.1 to 2.5 and 3.1),
/// field by field. Any thread may call.
final class VirtioRegisters: VirtioHost {
    static let noVector: UInt16 = 0xFFFF

    private struct Queue: Sendable {
        var setup: QueueSetup
        var isEnabled = false
        /// The device has been told to forget the queue and has not yet done so.
        var isResetting = false
        /// It has been reset, and the device does not have it again.
        var wasReset = false
        var vector = VirtioRegisters.noVector
    }

    private struct State: Sendable {
        var status: UInt8 = 0
        /// The device has been told to forget its driver and has not yet done so; the status still reads as it was.
        var isResetting = false
        var deviceFeatureSelect: UInt32 = 0
        var driverFeatureSelect: UInt32 = 0
        var driverFeatures: UInt64 = 0
        var queueSelect: UInt16 = 0
        var queues: [Queue]
        var configurationVector = VirtioRegisters.noVector
        /// Counts resets of the whole device.
        var epoch: UInt64 = 0
    }

    /// What every queue here can do.
    private static let ringFeatures: VirtioFeatures = [
        .version1, .indirectDescriptors, .eventIndex, .packedRing, .notificationData,
    ]

    let device: any VirtioDevice
    let offeredFeatures: VirtioFeatures
    private let memory: GuestMemory
    private let doorbells: QueueDoorbells?
    private let log: @Sendable (String) -> Void
    /// Guards the fields; nobody is called under it.
    private let state: Mutex<State>
    private let generation = Atomic<UInt8>(0)
    /// Guards who interrupts.
    private let interrupts = Mutex<Interrupts>(Interrupts())

    private struct Interrupts: Sendable {
        weak var target: (any VirtioInterrupts)?
    }

    /// `log` takes a line about a driver that breaks the rules; it may drop lines.
    init(
        device: any VirtioDevice, memory: GuestMemory, doorbells: QueueDoorbells? = nil,
        log: @escaping @Sendable (String) -> Void
    ) {
        self.device = device
        self.memory = memory
        self.doorbells = doorbells
        self.log = log
        offeredFeatures = Self.ringFeatures.union(device.features).union(
            device is any ResettableQueues ? .ringReset : [])
        state = Mutex(State(queues: Self.freshQueues(device)))
    }

    private static func freshQueues(_ device: any VirtioDevice) -> [Queue] {
        device.queueSizes.map { Queue(setup: QueueSetup(size: $0)) }
    }

    func connect(_ target: any VirtioInterrupts) {
        interrupts.withLock { $0.target = target }
        device.connect(self)
    }

    // MARK: from the device

    func interrupt(queue: Int) {
        let vector = state.withLock { $0.queues[queue].vector }
        target?.queueInterrupt(vector: vector)
    }

    func configurationChanged() {
        generation.wrappingAdd(1, ordering: .releasing)
        let (status, vector) = state.withLock { ($0.status, $0.configurationVector) }
        if status & DeviceStatus.driverOK != 0 { target?.configurationInterrupt(vector: vector) }
    }

    func deviceFailed(_ error: VirtioError) {
        log("\(device.name): the guest's driver broke the rules (\(error)); the device stands still until it is reset")
        let (isRunning, vector) = state.withLock { state in
            state.status |= DeviceStatus.needsReset
            return (state.status & DeviceStatus.driverOK != 0, state.configurationVector)
        }
        if isRunning { target?.configurationInterrupt(vector: vector) }
    }

    private var target: (any VirtioInterrupts)? { interrupts.withLock { $0.target } }

    // MARK: status

    var status: UInt8 { state.withLock { $0.status } }

    private enum Step {
        case none
        case reset
        case activate([VirtioQueue?], VirtioFeatures)
        case fail(VirtioError)
    }

    /// Zero resets; other values add bits, as none but a reset takes any back.
    func setStatus(_ value: UInt8) {
        let step = state.withLock { state -> Step in
            guard !state.isResetting else { return .none }
            if value == 0 {
                state.isResetting = true
                return .reset
            }
            return advance(&state, to: value)
        }
        switch step {
        case .none: break
        case .reset: reset {}
        case .activate(let queues, let features):
            device.activate(queues, features: features)
            doorbells?.setActive(queues.map { $0 != nil })
        case .fail(let error): deviceFailed(error)
        }
    }

    private func advance(_ state: inout State, to value: UInt8) -> Step {
        var news = value & DeviceStatus.driverBits & ~state.status
        let features = VirtioFeatures(rawValue: state.driverFeatures)
        if news & DeviceStatus.featuresOK != 0,
            !features.isSubset(of: offeredFeatures) || !features.contains(.version1)
        {
            news &= ~DeviceStatus.featuresOK
        }
        if (state.status | news) & DeviceStatus.featuresOK == 0 || state.status & DeviceStatus.needsReset != 0 {
            news &= ~DeviceStatus.driverOK
        }
        state.status |= news
        guard news & DeviceStatus.driverOK != 0 else { return .none }
        do throws(VirtioError) {
            var queues: [VirtioQueue?] = []
            for queue in state.queues {
                guard queue.isEnabled else {
                    queues.append(nil)
                    continue
                }
                queues.append(try VirtioQueue(queue.setup, features: features, memory: memory))
            }
            return .activate(queues, features)
        } catch {
            return .fail(error)
        }
    }

    /// Back to what the device was at power-on; `done` is called when it is.
    func reset(_ done: @escaping @Sendable () -> Void) {
        doorbells?.setActive([])
        device.reset { [self] in
            state.withLock { $0 = State(queues: Self.freshQueues(device), epoch: $0.epoch &+ 1) }
            done()
        }
    }

    // MARK: features

    func setDeviceFeatureSelect(_ value: UInt32) { state.withLock { $0.deviceFeatureSelect = value } }
    var deviceFeatureSelect: UInt32 { state.withLock { $0.deviceFeatureSelect } }
    func setDriverFeatureSelect(_ value: UInt32) { state.withLock { $0.driverFeatureSelect = value } }
    var driverFeatureSelect: UInt32 { state.withLock { $0.driverFeatureSelect } }

    /// The selected half of what the device offers.
    var deviceFeatures: UInt32 { state.withLock { half($0.deviceFeatureSelect, offeredFeatures.rawValue) } }

    var driverFeatures: UInt32 { state.withLock { half($0.driverFeatureSelect, $0.driverFeatures) } }

    private func half(_ select: UInt32, _ value: UInt64) -> UInt32 {
        select < 2 ? UInt32(truncatingIfNeeded: value >> (UInt64(select) * 32)) : 0
    }

    func setDriverFeatures(_ value: UInt32) {
        state.withLock { state in
            guard state.status & DeviceStatus.featuresOK == 0, state.driverFeatureSelect < 2 else { return }
            let shift = UInt64(state.driverFeatureSelect) * 32
            state.driverFeatures = state.driverFeatures & ~(0xFFFF_FFFF << shift) | UInt64(value) << shift
        }
    }

    // MARK: queues

    var queueCount: UInt16 { state.withLock { UInt16(truncatingIfNeeded: $0.queues.count) } }
    func setQueueSelect(_ value: UInt16) { state.withLock { $0.queueSelect = value } }
    var queueSelect: UInt16 { state.withLock { $0.queueSelect } }

    /// Reads a field of the selected queue; `missing` if there is no such queue.
    private func selected<Value: Sendable>(_ missing: Value, _ read: (Queue) -> Value) -> Value {
        state.withLock { state in
            let index = Int(state.queueSelect)
            return state.queues.indices.contains(index) ? read(state.queues[index]) : missing
        }
    }

    /// Changes the selected queue, unless it is in use.
    private func configure(_ change: (inout Queue) -> Void) {
        state.withLock { state in
            let index = Int(state.queueSelect)
            guard state.queues.indices.contains(index), !state.queues[index].isEnabled,
                state.status & DeviceStatus.driverOK == 0 || state.queues[index].wasReset
            else { return }
            change(&state.queues[index])
        }
    }

    /// Entries of the selected queue: at most so many, or so many as the driver has chosen; 0 if there is no such queue.
    var queueSize: UInt16 { selected(0) { $0.setup.size } }
    var queueIsEnabled: Bool { selected(false) { $0.isEnabled } }
    var queueSetup: QueueSetup { selected(QueueSetup(size: 0)) { $0.setup } }
    var queueMaximumSize: UInt16 {
        let index = Int(queueSelect)
        return device.queueSizes.indices.contains(index) ? device.queueSizes[index] : 0
    }

    /// A size above the device's limit changes nothing.
    func setQueueSize(_ value: UInt16) {
        let limit = queueMaximumSize
        configure { if value <= limit { $0.setup.size = value } }
    }

    /// The queue cannot be taken back but by a reset, the device's or its own.
    func enableQueue() {
        configure { $0.isEnabled = true }
        startAnew()
    }

    /// Hands the selected queue, which has been reset and is enabled again, to the device that runs.
    private func startAnew() {
        guard let device = device as? any ResettableQueues else { return }
        enum Start {
            case queue(Int, VirtioQueue)
            case failure(VirtioError)
        }
        let start = state.withLock { state -> Start? in
            let index = Int(state.queueSelect)
            guard state.status & DeviceStatus.driverOK != 0, state.status & DeviceStatus.needsReset == 0,
                !state.isResetting, state.queues.indices.contains(index), state.queues[index].wasReset,
                state.queues[index].isEnabled
            else { return nil }
            state.queues[index].wasReset = false
            do throws(VirtioError) {
                let features = VirtioFeatures(rawValue: state.driverFeatures)
                return .queue(index, try VirtioQueue(state.queues[index].setup, features: features, memory: memory))
            } catch {
                return .failure(error)
            }
        }
        switch start {
        case .queue(let index, let queue):
            device.activateQueue(index, queue)
            updateDoorbells()
        case .failure(let error): deviceFailed(error)
        case nil: break
        }
    }

    /// The selected queue is being reset.
    var queueIsResetting: Bool { selected(false) { $0.isResetting } }

    /// Takes the selected queue back from the device (virtio 1.2, 2.6.1).
    func resetQueue() {
        guard let device = device as? any ResettableQueues else { return }
        let reset = state.withLock { state -> (index: Int, epoch: UInt64)? in
            let index = Int(state.queueSelect)
            guard state.status & DeviceStatus.driverOK != 0, !state.isResetting,
                VirtioFeatures(rawValue: state.driverFeatures).contains(.ringReset),
                state.queues.indices.contains(index), state.queues[index].isEnabled, !state.queues[index].isResetting
            else { return nil }
            state.queues[index].isResetting = true
            return (index, state.epoch)
        }
        guard let reset else { return }
        updateDoorbells()
        device.resetQueue(reset.index) { [self] in
            state.withLock { state in
                // The whole device may have been reset meanwhile.
                guard state.epoch == reset.epoch else { return }
                state.queues[reset.index] = Queue(
                    setup: QueueSetup(size: device.queueSizes[reset.index]), wasReset: true)
            }
        }
    }

    private func updateDoorbells() {
        doorbells?.setActive(state.withLock { $0.queues.map { $0.isEnabled && !$0.isResetting } })
    }

    /// Changes where the selected queue's parts are.
    func setQueueArea(_ part: WritableKeyPath<QueueSetup, UInt64>, _ value: UInt64, mask: UInt64) {
        configure { $0.setup[keyPath: part] = $0.setup[keyPath: part] & ~mask | value & mask }
    }

    // MARK: vectors

    var configurationVector: UInt16 { state.withLock { $0.configurationVector } }
    var queueVector: UInt16 { selected(Self.noVector) { $0.vector } }

    /// A vector that the transport does not have is refused: it reads back as `noVector`.
    func setConfigurationVector(_ vector: UInt16, limit: Int) {
        state.withLock { $0.configurationVector = Int(vector) < limit ? vector : Self.noVector }
    }

    func setQueueVector(_ vector: UInt16, limit: Int) {
        state.withLock { state in
            let index = Int(state.queueSelect)
            guard state.queues.indices.contains(index) else { return }
            state.queues[index].vector = Int(vector) < limit ? vector : Self.noVector
        }
    }

    // MARK: device configuration

    var configurationGeneration: UInt8 { generation.load(ordering: .acquiring) }

    /// Zeros past its end.
    func readConfiguration(offset: Int, count: Int) -> UInt64 {
        let bytes = device.configuration()
        return (0..<count).reduce(0) { value, index in
            let place = offset + index
            return place < bytes.count ? value | UInt64(bytes[place]) << UInt64(index * 8) : value
        }
    }

    func writeConfiguration(offset: Int, count: Int, _ value: UInt64) {
        device.writeConfiguration(
            offset: offset, (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) })
    }

    /// Buffers are available in a queue, if there is one of that number and its driver is ready.
    func notify(queue: Int) {
        guard device.queueSizes.indices.contains(queue) else { return }
        device.notify(queue: queue)
    }
}
