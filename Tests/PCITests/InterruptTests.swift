import MachineModel
import PCI
import Testing

@Suite struct InterruptTests {
    let machine: PCIMachine
    private let command: UInt64 = 4

    init() throws { machine = try PCIMachine() }

    @Test func pinsOfDevicesSpreadOverFourLines() throws {
        for device in 1...5 {
            let function = try machine.addMemory()
            #expect(machine.read(device: UInt64(device), 0x3D, .one) == 1)
            #expect(machine.read(device: UInt64(device), 0x3C, .one) == UInt64(16 + device % 4))
            function.setInterrupt(true)
            #expect(machine.lines[device % 4].level)
        }
    }

    @Test func interruptDisableHoldsTheLineBack() throws {
        let function = try machine.addMemory()
        machine.write(device: 1, command, .two, 1 << 10)
        function.setInterrupt(true)
        #expect(!machine.lines[1].level)
        #expect(machine.read(device: 1, 6, .two) & 1 << 3 != 0)
        machine.write(device: 1, command, .two, 0)
        #expect(machine.lines[1].level)
        function.setInterrupt(false)
        #expect(!machine.lines[1].level)
    }

    /// A function with three vectors, whose table is at 0xC000_0000.
    private func addVectors() throws -> (table: MSIXTable, capability: UInt64) {
        let table = MSIXTable(count: 3, bus: machine.apics)
        _ = try machine.bridge.addFunction(
            PCIIdentity(vendorID: 0x1AF4, deviceID: 0x1041, classCode: 0x02_00_00), name: "vectors", bars: [],
            msix: (table, 1))
        machine.write(device: 1, command, .two, 2)
        var capability = machine.read(device: 1, 0x34, .one)
        while machine.read(device: 1, capability, .one) != 0x11 {
            capability = machine.read(device: 1, capability + 1, .one)
        }
        return (table, capability)
    }

    private func setVector(_ vector: UInt64, data: UInt64, isMasked: Bool = false) {
        machine.writeMemory(0xC000_0000 + vector * 16, .eight, 0xFEE0_1000)
        machine.writeMemory(0xC000_0008 + vector * 16, .four, data)
        machine.writeMemory(0xC000_000C + vector * 16, .four, isMasked ? 1 : 0)
    }

    @Test func aVectorIsSentAsTheMessageInTheTable() throws {
        let (table, capability) = try addVectors()
        #expect(machine.read(device: 1, capability + 2, .two) == 2)
        setVector(2, data: 0x4042)
        table.send(2)
        #expect(machine.apics.messages == [])
        machine.write(device: 1, capability + 2, .two, 1 << 15)
        table.send(2)
        #expect(machine.apics.messages == [InterruptMessage(address: 0xFEE0_1000, data: 0x4042)])
    }

    /// A vector gets its route when it is unmasked for the first time; the route follows the table from one unmasking to the next.
    @Test func routesFollowTheTable() throws {
        let (table, capability) = try addVectors()
        machine.write(device: 1, capability + 2, .two, 1 << 15)
        machine.apics.room.store(1, ordering: .relaxed)
        setVector(0, data: 0x41, isMasked: true)
        #expect(machine.apics.routes == [])
        setVector(0, data: 0x41)
        setVector(1, data: 0x42)
        #expect(machine.apics.routes == [InterruptMessage(address: 0xFEE0_1000, data: 0x41)])
        table.send(0)
        table.send(1)
        #expect(machine.apics.sent == [0x41])
        #expect(machine.apics.messages.map(\.data) == [0x42])
        machine.writeMemory(0xC000_000C, .four, 1)
        machine.writeMemory(0xC000_0008, .four, 0x43)
        #expect(machine.apics.routes.map(\.data) == [0x41])
        table.send(0)
        machine.writeMemory(0xC000_000C, .four, 0)
        #expect(machine.apics.routes.map(\.data) == [0x43])
        #expect(machine.apics.sent == [0x41, 0x43])
    }

    /// A message that the kernel refuses goes the other way.
    @Test func refusedRoutesAreGivenUp() throws {
        let (table, capability) = try addVectors()
        machine.write(device: 1, capability + 2, .two, 1 << 15)
        machine.apics.room.store(3, ordering: .relaxed)
        setVector(0, data: RecordingAPICs.refused)
        #expect(machine.apics.routes == [])
        table.send(0)
        #expect(machine.apics.messages.map(\.data) == [UInt32(RecordingAPICs.refused)])
    }

    @Test func maskedVectorsWaitAsPendingBits() throws {
        let (table, capability) = try addVectors()
        machine.write(device: 1, capability + 2, .two, 1 << 15)
        setVector(0, data: 1, isMasked: true)
        setVector(1, data: 2)
        table.send(0)
        table.send(0)
        machine.write(device: 1, capability + 2, .two, 3 << 14)
        table.send(1)
        #expect(machine.apics.messages == [])
        #expect(machine.readMemory(0xC000_0800) == 0b011)
        machine.write(device: 1, capability + 2, .two, 1 << 15)
        #expect(machine.apics.messages.map(\.data) == [2])
        machine.writeMemory(0xC000_000C, .four, 0)
        #expect(machine.apics.messages.map(\.data) == [2, 1])
        #expect(machine.readMemory(0xC000_0800) == 0)
    }

    @Test func vectorsAndOffsetsOutOfRangeDoNothing() throws {
        let (table, capability) = try addVectors()
        machine.write(device: 1, capability + 2, .two, 1 << 15)
        for vector in [3, 4, 2048, 65535, -1] { table.send(vector) }
        for offset in stride(from: 0xC000_0000 as UInt64, to: 0xC000_1000, by: 1) {
            for width in [AccessWidth.one, .two, .four, .eight] {
                machine.writeMemory(offset, width, UInt64.max)
                _ = machine.readMemory(offset, width)
            }
        }
        #expect(machine.apics.messages == [])
    }
}
