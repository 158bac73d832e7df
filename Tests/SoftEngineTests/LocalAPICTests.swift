import DavitTesting
import MachineModel
import Synchronization
import Testing
import X86

@testable import SoftEngine

/// Local APICs with a clock moved by hand; the TSC runs at 2 GHz of that clock.
final class APICBench: Sendable {
    final class Chips: InterruptSource {
        let ended = Mutex<[UInt8]>([])
        let acknowledged = Atomic<Int>(0)
        func acknowledgeExternalInterrupt() -> UInt8 {
            acknowledged.wrappingAdd(1, ordering: .relaxed)
            return 0x30
        }
        func endOfInterrupt(vector: UInt8) { ended.withLock { $0.append(vector) } }
    }

    final class Wakes: Sendable {
        let list = Mutex<[Int]>([])
    }

    let clock = ManualClock(now: 1_000_000)
    let chips = Chips()
    let wakes = Wakes()
    let bus: LocalAPICs

    init(vcpus: Int = 4, enabled: Bool = true) {
        bus = LocalAPICs(
            vcpuCount: vcpus, clock: clock, tscFrequency: 2_000_000_000, hostTSC: { [clock] in clock.now * 2 },
            wake: { [wakes] index in wakes.list.withLock { $0.append(index) } })
        bus.connect(chips)
        guard enabled else { return }
        for index in 0..<vcpus { write(index, 0xF0, 0x1FF) }
    }

    func write(_ vcpu: Int, _ offset: UInt64, _ value: UInt32) {
        bus[vcpu].writeMMIO(offset: offset, width: .four, value: UInt64(value))
    }

    func read(_ vcpu: Int, _ offset: UInt64) -> UInt32 { UInt32(bus[vcpu].readMMIO(offset: offset, width: .four)) }

    /// Writes ICR high, then low.
    func ipi(from vcpu: Int, to destination: UInt32, _ command: UInt32) {
        write(vcpu, 0x310, destination << 24)
        write(vcpu, 0x300, command)
    }

    func enterX2APIC() throws {
        for apic in bus.apics { try apic.writeBase(apic.base | APICBase.EXTD, physicalAddressBits: 40) }
    }

    /// Takes and ends everything deliverable on a vCPU; returns the vectors in order.
    func takeAll(_ vcpu: Int) -> [UInt8] {
        var vectors: [UInt8] = []
        while let vector = bus[vcpu].acknowledge() {
            vectors.append(vector)
            bus[vcpu].endOfInterrupt()
        }
        return vectors
    }

    /// Which vCPUs have got an interrupt; takes it.
    func receivers() -> [Int] { bus.apics.indices.filter { !takeAll($0).isEmpty } }

    func takeWakes() -> [Int] {
        wakes.list.withLock { list in
            defer { list = [] }
            return list
        }
    }

    func message(_ vector: UInt8, destination: UInt64 = 0, logical: Bool = false, data: UInt32 = 0) {
        bus.deliver(
            InterruptMessage(
                address: 0xFEE0_0000 | destination << 12 | (logical ? 4 : 0), data: data | UInt32(vector)))
    }
}

@Suite struct LocalAPICTests {
    let bench = APICBench()
    var bus: LocalAPICs { bench.bus }

    // MARK: taking interrupts

    @Test func stateAfterReset() {
        let bench = APICBench(vcpus: 2, enabled: false)
        #expect(bench.bus[0].base == 0xFEE0_0900)
        #expect(bench.bus[1].base == 0xFEE0_0800)
        #expect(bench.read(1, 0x20) == 1 << 24)
        #expect(bench.read(0, 0x30) == 0x0105_0014)
        #expect(bench.read(0, 0xE0) == 0xFFFF_FFFF)
        #expect(bench.read(0, 0xF0) == 0xFF)
        #expect(bench.read(1, 0x350) == 0x1_0000)
        // The boot processor is in virtual wire mode.
        #expect(bench.read(0, 0x350) == 0x700)
        // Disabled by software: no fixed interrupts.
        bench.message(0x40)
        #expect(!bench.bus[0].hasInterrupt)
    }

    @Test func takesTheMostUrgentFirst() {
        bench.message(0x41)
        bench.message(0x92)
        bench.message(0x93)
        #expect(bus[0].acknowledge() == 0x93)
        // Its class is in service now: 0x92 is not above it.
        #expect(!bus[0].hasInterrupt)
        #expect(bus[0].acknowledge() == nil)
        #expect(bench.read(0, 0xA0) == 0x90)
        #expect(bench.read(0, 0x140) == 1 << 19)
        bench.message(0xE0)
        #expect(bus[0].acknowledge() == 0xE0)
        bus[0].endOfInterrupt()
        bus[0].endOfInterrupt()
        #expect(bench.takeAll(0) == [0x92, 0x41])
        #expect(bench.read(0, 0xA0) == 0)
    }

    @Test func taskPriorityHoldsBack() {
        bus[0].cr8 = 5
        #expect(bench.read(0, 0x80) == 0x50)
        bench.message(0x5F)
        #expect(!bus[0].hasInterrupt)
        bench.message(0x60)
        #expect(bus[0].hasInterrupt)
        #expect(bench.takeAll(0) == [0x60])
        _ = bench.takeWakes()
        bench.write(0, 0x80, 0x4F)
        // The vCPU is told that something got through.
        #expect(bench.takeWakes() == [0])
        #expect(bench.takeAll(0) == [0x5F])
    }

    @Test func wakesOncePerNewInterrupt() {
        bench.message(0x40, destination: 2)
        bench.message(0x40, destination: 2)
        #expect(bench.takeWakes() == [2])
        #expect(bench.takeAll(2) == [0x40])
    }

    @Test func endOfLevelTriggeredInterruptReachesTheIOAPIC() {
        bench.message(0x61, data: 1 << 15)
        bench.message(0x71)
        #expect(bench.read(0, 0x1B0) == 2)
        #expect(bench.takeAll(0) == [0x71, 0x61])
        #expect(bench.chips.ended.withLock { $0 } == [0x61])
        // The same vector as an edge: no broadcast.
        bench.message(0x61)
        #expect(bench.takeAll(0) == [0x61])
        // With broadcast suppression: none either.
        bench.write(0, 0xF0, 0x11FF)
        bench.message(0x61, data: 1 << 15)
        #expect(bench.takeAll(0) == [0x61])
        #expect(bench.chips.ended.withLock { $0 } == [0x61])
    }

    @Test func eoiWithNothingInServiceIsHarmless() {
        bench.write(0, 0xB0, 0)
        #expect(bench.chips.ended.withLock { $0 }.isEmpty)
    }

    // MARK: the 8259

    @Test func externalInterruptComesThroughLINT0() {
        let bench = APICBench(vcpus: 2, enabled: false)
        bench.bus.setExternalInterrupt(true)
        #expect(bench.takeWakes() == [0])
        #expect(bench.bus[0].hasInterrupt)
        #expect(!bench.bus[1].hasInterrupt)
        #expect(bench.bus[0].acknowledge() == 0x30)
        bench.bus.setExternalInterrupt(false)
        #expect(bench.bus[0].acknowledge() == nil)
        // Masked.
        bench.write(0, 0xF0, 0x1FF)
        bench.write(0, 0x350, 0x1_0700)
        bench.bus.setExternalInterrupt(true)
        #expect(!bench.bus[0].hasInterrupt)
        _ = bench.takeWakes()
        bench.write(0, 0x350, 0x700)
        #expect(bench.takeWakes() == [0])
        #expect(bench.chips.acknowledged.load(ordering: .relaxed) == 1)
    }

    /// What Linux tries as "virtual wire" mode: LINT0 as a fixed interrupt.
    @Test func lint0CanBeFixedOrNMI() {
        bench.write(0, 0x350, 0x31)
        bus.setExternalInterrupt(true)
        #expect(bench.takeAll(0) == [0x31])
        bus.setExternalInterrupt(false)
        bench.write(0, 0x350, 0x400)
        bus.setExternalInterrupt(true)
        #expect(bus[0].takeRequests() == .NMI)
    }

    @Test func disabledAPICIsAnINTRPin() throws {
        bench.write(0, 0x350, 0x1_0000)
        try bus[0].writeBase(0xFEE0_0100, physicalAddressBits: 40)
        bus.setExternalInterrupt(true)
        #expect(bus[0].acknowledge() == 0x30)
        bench.message(0x40)
        bus.setExternalInterrupt(false)
        #expect(!bus[0].hasInterrupt)
    }

    // MARK: APIC base

    @Test func baseTransitions() throws {
        let apic = bus[1]
        func write(_ value: UInt64) throws { try apic.writeBase(value, physicalAddressBits: 40) }
        // x2APIC without enable, reserved bits, beyond the physical address space.
        for value in [0xFEE0_0400, 0xFEE0_0801, 0xFEE0_0A00, 1 << 40 | 0x800] as [UInt64] {
            #expect(throws: GuestFault.generalProtection) { try write(value) }
        }
        try write(0xFEE0_0C00)
        #expect(throws: GuestFault.generalProtection) { try write(0xFEE0_0800) }
        try write(0xFEE0_0000)
        #expect(throws: GuestFault.generalProtection) { try write(0xFEE0_0C00) }
        try write(0xFED0_0800)
        #expect(apic.base == 0xFED0_0800)
        // Enabled again, it is as after INIT.
        #expect(bench.read(1, 0xF0) == 0xFF)
    }

    // MARK: x2APIC

    @Test func x2APICRegisters() throws {
        #expect(throws: GuestFault.generalProtection) { try bus[3].readMSR(0x802) }
        try bench.enterX2APIC()
        #expect(try bus[3].readMSR(0x802) == 3)
        #expect(try bus[3].readMSR(0x80D) == 8)
        for msr in [0x800, 0x80B, 0x80E, 0x831, 0x83F, 0x840, 0x8FF] as [UInt32] {
            #expect(throws: GuestFault.generalProtection, "MSR \(msr)") { try bus[3].readMSR(msr) }
        }
        for (msr, value) in [
            (0x802, 0), (0x808, 0x100), (0x808, 1 << 32), (0x80B, 1), (0x80D, 0), (0x80F, 1 << 13), (0x828, 1),
            (0x830, 1 << 20), (0x832, 1 << 19), (0x83E, 4), (0x83F, 0x100), (0x839, 0), (0x810, 0),
        ] as [(UInt32, UInt64)] {
            #expect(throws: GuestFault.generalProtection, "MSR \(msr)") { try bus[3].writeMSR(msr, value) }
        }
        try bus[3].writeMSR(0x808, 0x20)
        #expect(bus[3].cr8 == 2)
        try bus[3].writeMSR(0x830, 0x2_0000_0040)
        #expect(try bus[3].readMSR(0x830) == 0x2_0000_0040)
        #expect(bench.takeAll(2) == [0x40])
        try bus[3].writeMSR(0x83F, 0x55)
        #expect(bench.takeAll(3) == [0x55])
    }

    // MARK: errors

    @Test func illegalVectorsAreReported() {
        bench.write(1, 0x370, 0xEE)
        bench.ipi(from: 1, to: 2, 0x05)
        #expect(bench.takeAll(2) == [])
        #expect(bench.takeAll(1) == [0xEE])
        #expect(bench.read(1, 0x280) == 0)
        bench.write(1, 0x280, 0)
        #expect(bench.read(1, 0x280) == 0x20)
        bench.write(1, 0x280, 0)
        #expect(bench.read(1, 0x280) == 0)
        bench.message(0x0F, destination: 1)
        bench.write(1, 0x280, 0)
        #expect(bench.read(1, 0x280) == 0x40)
        // A register that is not there; and an error vector that is illegal itself.
        bench.write(1, 0x370, 3)
        _ = bench.read(1, 0x3F0)
        bench.write(1, 0x280, 0)
        #expect(bench.read(1, 0x280) == 0x80)
    }

    @Test func softwareDisableMasksTheLVT() {
        bench.write(1, 0x370, 0xEE)
        bench.write(1, 0xF0, 0xFF)
        #expect(bench.read(1, 0x370) == 0x1_00EE)
        bench.write(1, 0x370, 0xEE)
        #expect(bench.read(1, 0x370) == 0x1_00EE)
        // NMI still comes.
        bench.message(0, destination: 1, data: 4 << 8)
        #expect(bus[1].takeRequests() == .NMI)
    }

    @Test func oddAccessesDoNothing() {
        bus[0].writeMMIO(offset: 0x80, width: .one, value: 0x50)
        bus[0].writeMMIO(offset: 0x84, width: .four, value: 0x50)
        #expect(bench.read(0, 0x80) == 0)
        bus[0].writeMMIO(offset: 0x80, width: .eight, value: 0x50)
        #expect(bench.read(0, 0x80) == 0x50)
        #expect(bus[0].readMMIO(offset: 0x84, width: .four) == 0)
        #expect(bus[1].readMMIO(offset: 0x23, width: .one) == 1)
    }

    // MARK: saved state

    @Test func savedPageGoesOnWhereItWas() throws {
        bench.write(1, 0x80, 0x20)
        bench.write(1, 0xD0, 0x0200_0000)
        bench.message(0x61, destination: 1, data: 1 << 15)
        #expect(bus[1].acknowledge() == 0x61)
        bench.message(0x75, destination: 1)
        bench.write(1, 0x320, 0x2_0040)
        bench.write(1, 0x3E0, 0xB)
        bench.write(1, 0x380, 1_000_000)
        bench.clock.advance(by: 400_000)

        let page = bus[1].savePage()
        let other = APICBench()
        try other.bus[1].restore(page: page, base: bus[1].base, tscDeadline: 0)
        #expect(other.bus[1].savePage() == page)
        #expect(other.read(1, 0x390) == 600_000)
        other.clock.advance(by: 600_000)
        #expect(other.bus[1].acknowledge() == 0x75)
        other.bus[1].endOfInterrupt()
        other.bus[1].endOfInterrupt()
        #expect(other.chips.ended.withLock { $0 } == [0x61])
        #expect(other.takeAll(1) == [0x40])
    }

    @Test func restoredDeadlineIsJudgedByTheRestoredTSC() throws {
        bench.write(1, 0x320, 0x4_0042)
        let apic = bus[1]
        let page = apic.savePage()
        // A guest whose TSC is far behind the host's.
        try apic.restore(page: page, base: apic.base, tscDeadline: 10_000)
        apic.setTSCOffset(0 &- bench.clock.now * 2)
        #expect(bench.takeAll(1) == [])
        bench.clock.advance(by: 5_001)
        #expect(bench.takeAll(1) == [0x42])
    }

    @Test func refusesPagesThatCannotBe() {
        let good = bus[1].savePage()
        for (byte, value) in [
            (0x23, 7), (0x81, 1), (0xF2, 1), (0x200, 1), (0x100, 0x80), (0x323, 1), (0x3E0, 4), (0x302, 1),
        ]
            as [(Int, UInt8)]
        {
            var page = good
            page[byte] = value
            #expect(throws: InvalidVCPUState.self, "byte \(byte)") {
                try bus[1].restore(page: page, base: bus[1].base, tscDeadline: 0)
            }
        }
        #expect(throws: InvalidVCPUState.self) {
            try bus[1].restore(page: Array(good.dropLast()), base: bus[1].base, tscDeadline: 0)
        }
        #expect(throws: InvalidVCPUState.self) { try bus[1].restore(page: good, base: 0x400, tscDeadline: 0) }
        #expect(bus[1].savePage() == good)
    }

    // MARK: hostile

    @Test func survivesAnything() throws {
        var random = SeededGenerator(seed: 0xFEE0_0000)
        let widths: [AccessWidth] = [.one, .two, .four, .eight]
        for round in 0..<60_000 {
            let value = random.next()
            let apic = bus[Int(value & 3)]
            let bits = random.next() >> (value >> 8 & 63)
            switch value >> 60 {
            case 0...4: apic.writeMMIO(offset: (value >> 16 & 0xFF) << 4, width: .four, value: bits)
            case 5: apic.writeMMIO(offset: value >> 16 & 0x1FFF, width: widths[Int(value >> 32 & 3)], value: bits)
            case 6: _ = apic.readMMIO(offset: value >> 16 & 0x1FFF, width: widths[Int(value >> 32 & 3)])
            case 7: try? apic.writeMSR(0x800 + UInt32(value >> 16 & 0xFF), bits)
            case 8: _ = try? apic.readMSR(0x800 + UInt32(value >> 16 & 0xFF))
            case 9:
                bus.deliver(
                    InterruptMessage(address: 0xFEE0_0000 | bits & 0xF_FFFF, data: UInt32(truncatingIfNeeded: value)))
            case 10: apic.tscDeadline = bits
            case 11: apic.setTSCOffset(bits)
            case 12: bench.clock.advance(by: value >> 16 & 0xFFFFF)
            case 13: if apic.acknowledge() != nil, value & 16 != 0 { apic.endOfInterrupt() }
            case 14 where round % 50 == 0:
                try? apic.writeBase(0xFEE0_0000 | (value >> 16 & 3) << 10, physicalAddressBits: 40)
            default: _ = apic.takeRequests()
            }
        }
        for apic in bus.apics {
            apic.reset()
            apic.setTSCOffset(0)
            #expect(!apic.hasRequests)
            let page = apic.savePage()
            try apic.restore(page: page, base: apic.base, tscDeadline: 0)
        }
    }
}
