import DavitTesting
import GuestMemory
import MachineModel
import Synchronization
import Testing

@testable import DeviceBus

@Suite struct SystemBusTests {
    let bus = SystemBus()

    @Test func nothingAttachedReadsAllOnes() {
        #expect(bus.readPort(0x80, width: .one) == 0xFF)
        #expect(bus.readPort(0xFFFF, width: .two) == 0xFFFF)
        #expect(bus.readPort(0xCF8, width: .four) == 0xFFFF_FFFF)
        #expect(bus.readMMIO(GuestPhysicalAddress(0xFED4_0000), width: .eight) == UInt64.max)
        #expect(bus.readMMIO(GuestPhysicalAddress(UInt64.max), width: .four) == 0xFFFF_FFFF)
        bus.writePort(0x80, width: .one, value: 0x55)
        bus.writeMMIO(GuestPhysicalAddress(UInt64.max), width: .eight, value: 1)
    }

    @Test func devicesSeeOffsetsFromTheirStart() throws {
        let device = Registers(count: 8)
        try bus.ports.attach(device, name: "com1", at: 0x3F8...0x3FF)
        bus.writePort(0x3FA, width: .one, value: 0xC7)
        #expect(device.accesses == ["write 2.1 = 0xc7"])
        #expect(bus.readPort(0x3FA, width: .one) == 0xC7)
    }

    @Test func overlapsAreRefusedWithBothNames() throws {
        let device = Registers(count: 16)
        try bus.ports.attach(device, name: "com1", at: 0x3F8...0x3FF)
        let error = #expect(throws: BusError.self) { try bus.ports.attach(device, name: "lpt", at: 0x3FF...0x400) }
        #expect(error?.description == "lpt at port 0x3ff-0x400 overlaps com1 at 0x3f8-0x3ff")
        try bus.mmio.attach(device, name: "hpet", at: GuestPhysicalAddress(0xFED0_0000), size: 16)
        #expect(throws: BusError.self) {
            try bus.mmio.attach(device, name: "other", at: GuestPhysicalAddress(0xFECF_FFFF), size: 2)
        }
        #expect(bus.ports.claims.map(\.name) == ["com1"])
        #expect(bus.mmio.claims.map(\.name) == ["hpet"])
    }

    @Test func rangesThatDoNotFitAreRefused() {
        let device = Registers(count: 16)
        for (start, size) in [(0, 0), (UInt64.max, 2), (2, UInt64.max)] as [(UInt64, UInt64)] {
            #expect(throws: BusError.invalidRange(space: .mmio, name: "x", start: start, size: size)) {
                try bus.mmio.attach(device, name: "x", at: GuestPhysicalAddress(start), size: size)
            }
        }
        #expect(throws: BusError.self) { try bus.ports.attachUnmapped(device, name: "x", size: 0) }
    }

    @Test func aFullBusSaysSo() throws {
        let device = Registers(count: 1)
        for port in 0..<UInt16(512) { try bus.ports.attach(device, name: "p", at: port...port) }
        #expect(throws: BusError.full(space: .port, name: "one more", capacity: 512)) {
            try bus.ports.attach(device, name: "one more", at: 0x8000...0x8000)
        }
    }

    @Test func anAccessInsideADeviceArrivesWhole() throws {
        let device = Registers(count: 8)
        try bus.mmio.attach(device, name: "d", at: GuestPhysicalAddress(0xD000_0000), size: 8)
        bus.writeMMIO(GuestPhysicalAddress(0xD000_0000), width: .eight, value: 0x8877_6655_4433_2211)
        #expect(device.accesses == ["write 0.8 = 0x8877665544332211"])
        #expect(bus.readMMIO(GuestPhysicalAddress(0xD000_0003), width: .two) == 0x5544)
    }

    @Test func anAccessAcrossTheEndIsSplitIntoBytes() throws {
        let low = Registers(count: 2)
        let high = Registers(count: 2)
        try bus.ports.attach(low, name: "low", at: 0x100...0x101)
        try bus.ports.attach(high, name: "high", at: 0x102...0x103)
        bus.writePort(0x101, width: .four, value: 0x4433_2211)
        #expect(low.accesses == ["write 1.1 = 0x11"])
        #expect(high.accesses == ["write 0.1 = 0x22", "write 1.1 = 0x33"])
        #expect(bus.readPort(0x101, width: .four) == 0xFF33_2211)
        // The first byte stands nowhere, the second is the device's.
        #expect(bus.readPort(0xFF, width: .two) == 0x00FF)
    }

    @Test func theLastPortDoesNotWrap() throws {
        let first = Registers(count: 1)
        let last = Registers(count: 1)
        try bus.ports.attach(first, name: "first", at: 0...0)
        try bus.ports.attach(last, name: "last", at: 0xFFFF...0xFFFF)
        bus.writePort(0xFFFF, width: .four, value: 0x4433_2211)
        #expect(last.accesses == ["write 0.1 = 0x11"])
        #expect(first.accesses == [])
    }

    @Test func aDeviceMovesAsItsBARSays() throws {
        let device = Registers(count: 4)
        let other = Registers(count: 4)
        let place = try bus.mmio.attachUnmapped(device, name: "bar0", size: 4)
        try bus.mmio.attach(other, name: "other", at: GuestPhysicalAddress(0xE000_0000), size: 4)
        #expect(bus.readMMIO(GuestPhysicalAddress(0), width: .four) == 0xFFFF_FFFF)

        try bus.mmio.move(place, to: GuestPhysicalAddress(0xD000_0000))
        #expect(bus.readMMIO(GuestPhysicalAddress(0xD000_0000), width: .four) == 0)

        // Onto another device: refused, and it stays where it was.
        #expect(throws: BusError.self) { try bus.mmio.move(place, to: GuestPhysicalAddress(0xE000_0002)) }
        #expect(bus.readMMIO(GuestPhysicalAddress(0xD000_0000), width: .four) == 0)
        // Over its own old place: fine.
        try bus.mmio.move(place, to: GuestPhysicalAddress(0xD000_0002))
        #expect(bus.readMMIO(GuestPhysicalAddress(0xD000_0000), width: .one) == 0xFF)

        try bus.mmio.move(place, to: nil)
        #expect(bus.readMMIO(GuestPhysicalAddress(0xD000_0002), width: .four) == 0xFFFF_FFFF)
    }

    @Test func valuesCarryOnlyTheirWidth() throws {
        try bus.ports.attach(AllOnes(), name: "ones", at: 0x10...0x1F)
        #expect(bus.readPort(0x10, width: .one) == 0xFF)
        let device = Registers(count: 4)
        try bus.ports.attach(device, name: "d", at: 0x20...0x23)
        bus.writePort(0x20, width: .one, value: 0xFFFF_FF42)
        #expect(device.accesses == ["write 0.1 = 0x42"])
    }

    @Test func tracingNamesDeviceAndValue() throws {
        let lines = Mutex<[String]>([])
        try bus.ports.attach(Registers(count: 8), name: "com1", at: 0x3F8...0x3FF)
        bus.trace { access in lines.withLock { $0.append(access.description) } }
        bus.writePort(0x3F8, width: .one, value: 0x41)
        _ = bus.readPort(0x3F8, width: .one)
        _ = bus.readMMIO(GuestPhysicalAddress(0xFED0_0000), width: .four)
        bus.trace(nil)
        _ = bus.readPort(0x3F8, width: .one)
        #expect(
            lines.withLock { $0 } == [
                "io port write 0x3f8.1 = 0x41 com1",
                "io port read 0x3f8.1 = 0x41 com1",
                "io MMIO read 0xfed00000.4 = 0xffffffff -",
            ])
    }

    /// While one thread moves a BAR back and forth, lookups from another only ever see offsets inside the device.
    @Test func movingUnderLookupsNeverLeavesTheDevice() async throws {
        let device = Registers(count: 64)
        let place = try bus.mmio.attachUnmapped(device, name: "bar0", size: 64)
        async let mover: Void = {
            for step in 0..<20_000 {
                try bus.mmio.move(
                    place, to: step % 3 == 0 ? nil : GuestPhysicalAddress(0x1000 &+ UInt64(step % 7) &* 16))
            }
        }()
        for step in 0..<20_000 {
            _ = bus.readMMIO(GuestPhysicalAddress(0x0FF0 &+ UInt64(step % 256)), width: .four)
        }
        try await mover
        #expect(device.outsiders == 0)
    }
}

/// Bytes that can be read and written, with a record of the writes.
private final class Registers: PortDevice, MMIODevice {
    private struct State {
        var bytes: [UInt8]
        var accesses: [String] = []
        var outsiders = 0
    }

    private let state: Mutex<State>

    init(count: Int) { state = Mutex(State(bytes: [UInt8](repeating: 0, count: count))) }

    var accesses: [String] { state.withLock { $0.accesses } }
    /// Accesses that were not inside the device.
    var outsiders: Int { state.withLock { $0.outsiders } }

    func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64 {
        state.withLock { state in
            guard offset <= UInt64(state.bytes.count - width.bytes) else {
                state.outsiders += 1
                return 0
            }
            return (0..<width.bytes).reduce(0) { $0 | UInt64(state.bytes[Int(offset) + $1]) << (8 * UInt64($1)) }
        }
    }

    func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64) {
        state.withLock { state in
            state.accesses.append("write \(offset).\(width.rawValue) = 0x\(String(value, radix: 16))")
            for step in 0..<width.bytes {
                state.bytes[Int(offset) + step] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(step)))
            }
        }
    }

    func readPort(offset: UInt16, width: AccessWidth) -> UInt32 {
        UInt32(readMMIO(offset: UInt64(offset), width: width))
    }

    func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {
        writeMMIO(offset: UInt64(offset), width: width, value: UInt64(value))
    }
}

/// A device that drives more lines than it was asked for.
private final class AllOnes: PortDevice {
    func readPort(offset: UInt16, width: AccessWidth) -> UInt32 { UInt32.max }
    func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {}
}
