import DavitTesting
import DeviceBus
import Glibc
import GuestMemory
import MachineModel
import PCI
import Synchronization
import Testing
import VirtioQueue

@testable import VirtioTransport

/// A device that remembers what its transport told it.
final class RecordingDevice: ResettableQueues {
    let type = VirtioDeviceType.entropy
    let name = "recorder"
    let features = VirtioFeatures(bit: 3)
    let queueSizes: [UInt16] = [8, 64]

    struct Record {
        var active: [Bool] = []
        var features: VirtioFeatures = []
        var notified: [Int] = []
        var resets = 0
        var written: [UInt8] = []
        var holdsResets = false
        var done: [@Sendable () -> Void] = []
    }

    let record = Mutex(Record())
    private struct Host: Sendable { weak var host: (any VirtioHost)? }
    private let connection = Mutex(Host())
    var host: (any VirtioHost)? { connection.withLock { $0.host } }

    func configuration() -> [UInt8] { [1, 2, 3, 4, 5] }
    func writeConfiguration(offset: Int, _ bytes: [UInt8]) { record.withLock { $0.written += bytes } }
    func connect(_ host: any VirtioHost) { connection.withLock { $0.host = host } }

    func activate(_ queues: [VirtioQueue?], features: VirtioFeatures) {
        record.withLock {
            $0.active = queues.map { $0 != nil }
            $0.features = features
        }
    }

    func resetQueue(_ index: Int, _ done: @escaping @Sendable () -> Void) {
        let isHeld = record.withLock { record in
            record.active[index] = false
            if record.holdsResets { record.done.append(done) }
            return record.holdsResets
        }
        if !isHeld { done() }
    }

    func activateQueue(_ index: Int, _ queue: VirtioQueue) { record.withLock { $0.active[index] = true } }

    func notify(queue: Int) { record.withLock { $0.notified.append(queue) } }

    func reset(_ done: @escaping @Sendable () -> Void) {
        let isHeld = record.withLock { record in
            record.resets += 1
            if record.holdsResets { record.done.append(done) }
            return record.holdsResets
        }
        if !isHeld { done() }
    }
}

final class MessageList: InterruptMessageReceiver {
    private let record = Mutex<[InterruptMessage]>([])
    var messages: [InterruptMessage] { record.withLock { $0 } }
    func deliver(_ message: InterruptMessage) { record.withLock { $0.append(message) } }
}

/// What a kernel that takes writes was asked for.
private final class RecordingDoorbells: DoorbellSpace {
    let isFull = Atomic<Bool>(false)
    private let descriptors = Mutex<[UInt64: Int32]>([:])
    var addresses: [UInt64] { descriptors.withLock { $0.keys.sorted() } }

    func attach(_ descriptor: Int32, at address: GuestPhysicalAddress) -> Bool {
        descriptors.withLock { descriptors in
            guard !isFull.load(ordering: .relaxed), descriptors[address.rawValue] == nil else { return false }
            descriptors[address.rawValue] = descriptor
            return true
        }
    }

    func detach(_ descriptor: Int32, from address: GuestPhysicalAddress) {
        descriptors.withLock { descriptors in
            #expect(descriptors[address.rawValue] == descriptor)
            descriptors[address.rawValue] = nil
        }
    }

    /// As the guest's write does.
    func ring(_ address: UInt64) {
        descriptors.withLock { descriptors in
            var one: UInt64 = 1
            #expect(descriptors[address].map { Glibc.write($0, &one, 8) } == 8)
        }
    }
}

private final class NoPorts: PortDevice {
    func readPort(offset: UInt16, width: AccessWidth) -> UInt32 { 0 }
    func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {}
}

@Suite final class PCITransportTests {
    private let memory = try! GuestMemory(size: 1 << 20)
    private let bus = SystemBus()
    private let line = RecordingIRQLine()
    private let apics = MessageList()
    private let doorbells = RecordingDoorbells()
    private let device = RecordingDevice()
    private let bridge: PCIHostBridge
    private let transport: VirtioPCI
    /// Where the bridge puts the BARs: the registers, then the MSI-X table.
    private let common: UInt64 = 0xC000_0000

    init() throws {
        bridge = try PCIHostBridge(
            memory: bus.mmio, memoryWindow: 0xC000_0000..<0xC100_0000, makeLineEnd: { [line] _ in line })
        transport = try VirtioPCI(device, on: bridge, apics: apics, doorbells: doorbells, memory: memory) { _ in }
        try bus.ports.attach(bridge.makePorts(resetControl: NoPorts()), name: "bridge", at: 0xCF8...0xCFF)
        config(4, .two, 6)
    }

    deinit { transport.close() }

    // MARK: a driver's hands

    private func config(_ register: UInt32, _ width: AccessWidth = .four) -> UInt32 {
        bus.writePort(0xCF8, width: .four, value: 1 << 31 | 1 << 11 | register & ~3)
        return bus.readPort(0xCFC + UInt16(register & 3), width: width)
    }

    private func config(_ register: UInt32, _ width: AccessWidth, _ value: UInt32) {
        bus.writePort(0xCF8, width: .four, value: 1 << 31 | 1 << 11 | register & ~3)
        bus.writePort(0xCFC + UInt16(register & 3), width: width, value: value)
    }

    private func read(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        bus.readMMIO(GuestPhysicalAddress(common + offset), width: width)
    }

    private func write(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        bus.writeMMIO(GuestPhysicalAddress(common + offset), width: width, value: value)
    }

    /// Offsets of capabilities by their virtio type.
    private var capabilities: [UInt32: UInt32] {
        var found: [UInt32: UInt32] = [:]
        var place = config(0x34, .one)
        while place != 0 {
            if config(place, .one) == 9 { found[config(place + 3, .one)] = place }
            place = config(place + 1, .one)
        }
        return found
    }

    private func negotiate(_ features: UInt64) {
        write(0x14, .one, 1)
        write(0x14, .one, 3)
        for half in 0..<2 as Range<UInt64> {
            write(0x08, .four, half)
            write(0x0C, .four, features >> (half * 32) & 0xFFFF_FFFF)
        }
        write(0x14, .one, 0xB)
    }

    private func setQueue(_ index: UInt64, size: UInt64 = 8, at address: UInt64 = 0x1000) {
        write(0x16, .two, index)
        write(0x18, .two, size)
        write(0x20, .four, address)
        write(0x24, .four, 0)
        write(0x28, .eight, address + 0x1000)
        write(0x30, .eight, address + 0x2000)
        write(0x1C, .two, 1)
    }

    private var record: RecordingDevice.Record { device.record.withLock { $0 } }

    // MARK: as it should be

    @Test func aDriverFindsTheDeviceAndItsCapabilities() {
        #expect(config(0) == 0x1044_1AF4)
        #expect(config(8) == 0x00FF_0001)
        let capabilities = capabilities
        #expect(capabilities.keys.sorted() == [1, 2, 3, 4, 5])
        for (type, offset) in [(1, 0), (2, 0x3000), (3, 0x1000), (4, 0x2000)] as [(UInt32, UInt32)] {
            #expect(config(capabilities[type]! + 4, .one) == 2)
            #expect(config(capabilities[type]! + 8) == offset)
        }
        #expect(config(capabilities[2]! + 16) == 4)
    }

    @Test func aDriverBringsItUp() {
        write(0x00, .four, 1)
        #expect(read(0x04, .four) & 1 == 1)
        negotiate(1 << 32 | 1 << 3)
        #expect(read(0x14, .one) == 0xB)
        #expect(read(0x12, .two) == 2)
        setQueue(1)
        write(0x14, .one, 0xF)
        #expect(record.active == [false, true])
        #expect(record.features == VirtioFeatures(rawValue: 1 << 32 | 1 << 3))
        write(0x3004, .two, 1)
        #expect(record.notified == [1])
        #expect(read(0x2001, .two) == 0x0302)
        write(0x2002, .one, 9)
        #expect(record.written == [9])
        write(0x14, .one, 0)
        #expect(read(0x14, .one) == 0)
        #expect(record.resets == 1)
        write(0x16, .two, 1)
        #expect(read(0x1C, .two) == 0 && read(0x18, .two) == 64)
    }

    @Test func interruptsGoThroughMSIX() {
        let msix = (0..<256 as Range<UInt32>).first { $0 >= 0x40 && $0 % 4 == 0 && config($0, .one) == 0x11 }!
        config(msix + 2, .two, 1 << 15)
        for vector in 0..<3 as Range<UInt64> {
            bus.writeMMIO(GuestPhysicalAddress(0xC000_4000 + vector * 16), width: .eight, value: 0xFEE0_0000)
            bus.writeMMIO(GuestPhysicalAddress(0xC000_4008 + vector * 16), width: .four, value: 0x40 + vector)
            bus.writeMMIO(GuestPhysicalAddress(0xC000_400C + vector * 16), width: .four, value: 0)
        }
        negotiate(1 << 32)
        write(0x10, .two, 0)
        write(0x16, .two, 1)
        write(0x1A, .two, 2)
        #expect(read(0x1A, .two) == 2)
        write(0x14, .one, 0xF)
        device.host?.interrupt(queue: 1)
        device.host?.configurationChanged()
        device.host?.interrupt(queue: 0)
        #expect(apics.messages.map(\.data) == [0x42, 0x40])
        #expect(read(0x15, .one) == 1)
    }

    @Test func withoutMSIXThePinIsRaisedUntilTheISRIsRead() {
        negotiate(1 << 32)
        write(0x14, .one, 0xF)
        device.host?.interrupt(queue: 0)
        device.host?.configurationChanged()
        #expect(line.level)
        #expect(read(0x1000, .one) == 3)
        #expect(!line.level)
        #expect(read(0x1000, .one) == 0)
    }

    @Test func theWindowInConfigurationSpaceReachesTheRegisters() {
        let window = capabilities[5]!
        config(window + 4, .one, 2)
        config(window + 8, .four, 0x12)
        config(window + 12, .four, 2)
        #expect(config(window + 16, .two) == 2)
        config(window + 8, .four, 0x16)
        config(window + 16, .two, 1)
        #expect(read(0x16, .two) == 1)
        // Past the BAR, of an odd length, in a BAR that is not there.
        for (bar, offset, length) in [(2, 0x4000, 4), (2, 0xFFFF_FFFF, 4), (2, 0, 3), (5, 0, 4), (255, 0, 4)]
            as [(UInt32, UInt32, UInt32)]
        {
            config(window + 4, .one, bar)
            config(window + 8, .four, offset)
            config(window + 12, .four, length)
            config(window + 16, .four, 0xFFFF_FFFF)
            _ = config(window + 16)
        }
    }

    // MARK: doorbells

    /// The kernel watches the registers of the queues in use, wherever the BAR is, until the device is reset.
    @Test func doorbellsFollowQueuesAndBAR() {
        #expect(doorbells.addresses == [])
        negotiate(1 << 32)
        setQueue(1)
        write(0x14, .one, 0xF)
        #expect(doorbells.addresses == [0xC000_3004])
        config(0x18, .four, 0xC080_0000)
        #expect(doorbells.addresses == [0xC080_3004])
        config(4, .two, 4)
        #expect(doorbells.addresses == [])
        config(0x18, .four, 0xC000_0000)
        config(4, .two, 6)
        #expect(doorbells.addresses == [0xC000_3004])
        write(0x14, .one, 0)
        #expect(doorbells.addresses == [])
    }

    /// The device's thread notifies it; a notification that had not arrived when the register moved is not lost.
    @Test func doorbellsNotifyTheDevice() async throws {
        negotiate(1 << 32)
        setQueue(0)
        setQueue(1, at: 0x5000)
        write(0x14, .one, 0xF)
        doorbells.ring(0xC000_3004)
        while record.notified != [1] { try await Task.sleep(for: .milliseconds(1)) }
        for round in 1...100 {
            doorbells.ring(round % 2 == 1 ? 0xC000_3000 : 0xC080_3000)
            config(0x18, .four, round % 2 == 1 ? 0xC080_0000 : 0xC000_0000)
            while record.notified.count <= round { try await Task.sleep(for: .milliseconds(1)) }
        }
        #expect(record.notified == [1] + Array(repeating: 0, count: 100))
    }

    /// A kernel that has no room: notifications come through the registers.
    @Test func withoutDoorbellsTheRegistersNotify() {
        doorbells.isFull.store(true, ordering: .relaxed)
        negotiate(1 << 32)
        setQueue(1)
        write(0x14, .one, 0xF)
        #expect(doorbells.addresses == [])
        write(0x3004, .two, 1)
        #expect(record.notified == [1])
    }

    // MARK: hostile drivers

    /// 7: features that were never offered, none at all, or changed afterwards.
    @Test func featuresThatWereNotOfferedAreNotConfirmed() {
        negotiate(1 << 32 | 1 << 5)
        #expect(read(0x14, .one) == 3)
        write(0x14, .one, 7)
        #expect(read(0x14, .one) == 3 && record.active == [])
        write(0x14, .one, 0)
        negotiate(1 << 3)
        #expect(read(0x14, .one) == 3)
        negotiate(1 << 32)
        #expect(read(0x14, .one) == 0xB)
        write(0x08, .four, 0)
        write(0x0C, .four, 1 << 5)
        #expect(read(0x0C, .four) == 0)
        for select in [2, 31, 0xFFFF_FFFF] as [UInt64] {
            write(0x00, .four, select)
            write(0x08, .four, select)
            write(0x0C, .four, 0xFFFF_FFFF)
            #expect(read(0x04, .four) == 0)
        }
    }

    /// 7: a queue is what it was when it was switched on; bits of the status are not taken back one by one.
    @Test func aQueueInUseDoesNotChange() {
        negotiate(1 << 32)
        setQueue(0)
        setQueue(0, size: 4, at: 0x8000)
        #expect(read(0x18, .two) == 8 && read(0x20, .eight) == 0x1000)
        write(0x14, .one, 0xF)
        write(0x16, .two, 1)
        write(0x18, .two, 16)
        write(0x1C, .two, 1)
        #expect(read(0x1C, .two) == 0 && read(0x18, .two) == 64)
        write(0x14, .one, 1)
        #expect(read(0x14, .one) == 0xF)
    }

    /// 6: rings that cannot be stop the device, which says so.
    @Test func ringsThatCannotBeStopTheDevice() {
        for (size, address) in [(0, 0x1000), (7, 0x1000), (8, 0x1001), (8, 0xFEE0_0000), (8, 0xFFFF_FFFF_FFFF_F000)]
            as [(UInt64, UInt64)]
        {
            write(0x14, .one, 0)
            negotiate(1 << 32)
            write(0x16, .two, 0)
            write(0x18, .two, size)
            write(0x20, .eight, address)
            write(0x28, .eight, 0x2000)
            write(0x30, .eight, 0x3000)
            write(0x1C, .two, 1)
            write(0x14, .one, 0xF)
            #expect(read(0x14, .one) == 0x4F, "size \(size) at \(address)")
        }
        #expect(record.active == [])
        write(0x14, .one, 0)
        #expect(read(0x14, .one) == 0)
        write(0x16, .two, 0)
        write(0x18, .two, 128)
        #expect(read(0x18, .two) == 8)
    }

    /// 8: queues, vectors and offsets out of range; any width anywhere.
    @Test func selectorsAndOffsetsOutOfRangeDoNothing() {
        for queue in [2, 3, 0x7FFF, 0xFFFF] as [UInt64] {
            setQueue(queue)
            #expect(read(0x18, .two) == 0 && read(0x1C, .two) == 0 && read(0x20, .eight) == 0)
            write(0x1A, .two, 1)
            #expect(read(0x1A, .two) == 0xFFFF)
            write(0x3000 + min(queue, 0x3FF) * 4, .two, queue)
        }
        #expect(record.notified == [])
        for vector in [3, 4, 0xFFFE] as [UInt64] {
            write(0x10, .two, vector)
            #expect(read(0x10, .two) == 0xFFFF)
            write(0x16, .two, 0)
            write(0x1A, .two, vector)
            #expect(read(0x1A, .two) == 0xFFFF)
        }
        for offset in 0..<0x4000 as Range<UInt64> {
            for width in [AccessWidth.one, .two, .four, .eight] {
                write(offset, width, UInt64.max)
                _ = read(offset, width)
            }
        }
    }

    /// 9: the driver sees its reset done no sooner than the device has let go.
    /// 2.6.1, 4.1.4.3: a queue that is reset is set up anew, with another size, and runs again; the others go on.
    @Test func aQueueIsResetAlone() {
        negotiate(1 << 32 | 1 << 40)
        setQueue(0)
        setQueue(1, size: 32, at: 0x8000)
        write(0x14, .one, 0xF)
        #expect(record.active == [true, true])
        device.record.withLock { $0.holdsResets = true }
        write(0x16, .two, 0)
        write(0x3A, .two, 1)
        write(0x3A, .two, 1)
        #expect(read(0x3A, .two) == 1 && record.active == [false, true])
        // Not before it is done.
        write(0x18, .two, 2)
        #expect(read(0x18, .two) == 8)
        for done in record.done { done() }
        #expect(record.done.count == 1)
        #expect(read(0x3A, .two) == 0 && read(0x1C, .two) == 0 && read(0x1A, .two) == 0xFFFF)
        setQueue(0, size: 4, at: 0x4000)
        #expect(read(0x1C, .two) == 1 && read(0x18, .two) == 4 && record.active == [true, true])
        write(0x16, .two, 1)
        #expect(read(0x1C, .two) == 1 && read(0x18, .two) == 32)
    }

    /// 7: the reset of a queue that is not there, is not enabled, or without the feature; a reset of the device while one of a queue is under way.
    @Test func queueResetsThatCannotBe() {
        negotiate(1 << 32)
        setQueue(0)
        write(0x14, .one, 0xF)
        write(0x3A, .two, 1)
        #expect(record.active == [true, false])
        write(0x14, .one, 0)
        negotiate(1 << 32 | 1 << 40)
        setQueue(0)
        write(0x3A, .two, 1)
        write(0x14, .one, 0xF)
        for queue in [1, 2, 0xFFFF] as [UInt64] {
            write(0x16, .two, queue)
            write(0x3A, .two, 1)
            write(0x1C, .two, 1)
        }
        #expect(record.active == [true, false])
        write(0x16, .two, 0)
        device.record.withLock { $0.holdsResets = true }
        write(0x3A, .two, 1)
        write(0x14, .one, 0)
        for done in record.done.reversed() { done() }
        #expect(read(0x14, .one) == 0)
        negotiate(1 << 32)
        setQueue(0)
        write(0x14, .one, 0xF)
        #expect(read(0x1C, .two) == 1 && read(0x18, .two) == 8)
    }

    @Test func aResetIsSeenWhenItIsDone() {
        negotiate(1 << 32)
        write(0x14, .one, 0xF)
        device.record.withLock { $0.holdsResets = true }
        write(0x14, .one, 0)
        #expect(read(0x14, .one) == 0xF)
        write(0x14, .one, 0xF)
        write(0x14, .one, 0)
        #expect(record.resets == 1)
        for done in record.done { done() }
        #expect(read(0x14, .one) == 0)
    }

    @Test func aFailedDeviceAsksForAResetAndGetsWellByIt() {
        negotiate(1 << 32)
        write(0x14, .one, 0xF)
        device.host?.deviceFailed(.chainTooLong)
        #expect(read(0x14, .one) == 0x4F)
        #expect(line.level && read(0x1000, .one) & 2 != 0)
        write(0x14, .one, 0)
        negotiate(1 << 32)
        #expect(read(0x14, .one) == 0xB)
    }
}
