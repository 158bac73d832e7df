import GuestMemory
import MachineModel
import Testing

@testable import ACPITables

/// Finds the tables in guest memory as a kernel does: from the root pointer on.
private struct Reader {
    let memory: GuestMemory

    func bytes(_ address: UInt64, _ count: Int) throws -> [UInt8] {
        try memory.readBytes(at: GuestPhysicalAddress(address), count: count)
    }

    func read<Value: BitwiseCopyable>(_ type: Value.Type, _ address: UInt64) throws -> Value {
        try memory.read(type, at: GuestPhysicalAddress(address))
    }

    func table(_ address: UInt64) throws -> [UInt8] {
        let table = try bytes(address, Int(try read(UInt32.self, address + 4)))
        #expect(table.reduce(0, &+) == 0, "checksum")
        return table
    }

    /// By signature, through the XSDT.
    func tables() throws -> [String: [UInt8]] {
        let xsdt = try table(try read(UInt64.self, 0xE_0018))
        var found: [String: [UInt8]] = [:]
        for offset in stride(from: 36, to: xsdt.count, by: 8) {
            let address = xsdt[offset..<offset + 8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            let table = try table(address)
            found[String(decoding: table[0..<4], as: UTF8.self)] = table
        }
        return found
    }
}

extension [UInt8] {
    fileprivate func number(_ offset: Int, _ count: Int) -> UInt64 {
        self[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}

@Suite struct ACPITableSetTests {
    let memory = try! GuestMemory(size: 2 << 20)

    private func write(_ platform: ACPIPlatform) throws -> Reader {
        try ACPITableSet(platform).write(into: memory)
        return Reader(memory: memory)
    }

    @Test func aSearchOfTheBIOSAreaFindsTheRootPointer() throws {
        let reader = try write(ACPIPlatform(processorCount: 1))
        let places = try stride(from: UInt64(0xE_0000), to: 0x10_0000, by: 16).filter {
            try reader.bytes($0, 8) == Array("RSD PTR ".utf8)
        }
        #expect(places == [0xE_0000])
        let rsdp = try reader.bytes(0xE_0000, 36)
        #expect(rsdp[..<20].reduce(0, &+) == 0)
        #expect(rsdp.reduce(0, &+) == 0)
        #expect(rsdp[15] == 2)
    }

    @Test func rsdtAndXSDTListTheSameTables() throws {
        let reader = try write(ACPIPlatform(processorCount: 2))
        let rsdt = try reader.table(UInt64(try reader.read(UInt32.self, 0xE_0010)))
        let xsdt = try reader.table(try reader.read(UInt64.self, 0xE_0018))
        let short = stride(from: 36, to: rsdt.count, by: 4).map { rsdt.number($0, 4) }
        let long = stride(from: 36, to: xsdt.count, by: 8).map { xsdt.number($0, 8) }
        #expect(short == long)
        #expect(try reader.tables().keys.sorted() == ["APIC", "FACP", "HPET", "MCFG"])
    }

    @Test func fadtLeadsToDSDTAndFACSAndNamesThePorts() throws {
        let reader = try write(ACPIPlatform(processorCount: 1))
        let fadt = try #require(try reader.tables()["FACP"])
        #expect(fadt.count == 276 && fadt[8] == 6)
        let facs = fadt.number(36, 4)
        #expect(facs % 64 == 0)
        #expect(try reader.bytes(facs, 4) == Array("FACS".utf8))
        #expect(fadt.number(40, 4) == fadt.number(140, 8))
        #expect(try reader.table(fadt.number(40, 4)).prefix(4).elementsEqual("DSDT".utf8))
        #expect(fadt.number(46, 2) == 9)
        #expect(fadt.number(48, 4) == 0, "SMI_CMD")
        #expect(fadt.number(56, 4) == 0x600 && fadt.number(148 + 4, 8) == 0x600)
        #expect(fadt.number(64, 4) == 0x604 && fadt.number(172 + 4, 8) == 0x604)
        #expect(fadt.number(76, 4) == 0x608 && fadt.number(208 + 4, 8) == 0x608)
        #expect(fadt.number(80, 4) == 0x620 && fadt.number(220 + 4, 8) == 0x620)
        #expect(Array(fadt[88..<93]) == [4, 2, 0, 4, 4])
        #expect(fadt[108] == 0x32, "CENTURY")
        #expect(fadt.number(109, 2) == 0b111, "IAPC_BOOT_ARCH")
        #expect(fadt.number(112, 4) & (1 << 20) == 0, "HW_REDUCED_ACPI")
        #expect(fadt[116] == 1 && fadt.number(120, 8) == 0xCF9 && fadt[128] == 6, "RESET_REG")
    }

    @Test func madtNamesProcessorsTheIOAPICAndOverrides() throws {
        let madt = try #require(try write(ACPIPlatform(processorCount: 3)).tables()["APIC"])
        #expect(madt.number(36, 4) == 0xFEE0_0000 && madt.number(40, 4) == 1)
        #expect(
            structures(of: madt) == [
                [0, 8, 0, 0, 1, 0, 0, 0], [0, 8, 1, 1, 1, 0, 0, 0], [0, 8, 2, 2, 1, 0, 0, 0],
                [1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0],
                [2, 10, 0, 0, 2, 0, 0, 0, 0, 0], [2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0],
                [4, 6, 0xFF, 0, 0, 1],
            ])
    }

    @Test func processorsFrom255OnAreX2APICs() throws {
        let madt = try #require(try write(ACPIPlatform(processorCount: 300)).tables()["APIC"])
        let structures = structures(of: madt)
        #expect(structures.count { $0[0] == 0 } == 255)
        let x2APICs = structures.filter { $0[0] == 9 }
        #expect(x2APICs.map { $0.number(4, 4) } == (255..<300).map { UInt64($0) })
        #expect(x2APICs.allSatisfy { $0.number(4, 4) == $0.number(12, 4) && $0.number(8, 4) == 1 })
        #expect(structures.count { $0[0] == 10 } == 1)
    }

    private func structures(of madt: [UInt8]) -> [[UInt8]] {
        var found: [[UInt8]] = []
        var offset = 44
        while offset < madt.count {
            found.append(Array(madt[offset..<offset + Int(madt[offset + 1])]))
            offset += Int(madt[offset + 1])
        }
        return found
    }

    @Test func hpetIsLeftOutWithoutOne() throws {
        let table = try #require(try write(ACPIPlatform(processorCount: 1)).tables()["HPET"])
        #expect(table.number(44, 8) == 0xFED0_0000)
        #expect(try write(ACPIPlatform(processorCount: 1, hasHPET: false)).tables()["HPET"] == nil)
    }

    @Test func writingAgainLeavesNothingOfTheGuests() throws {
        let tables = try ACPITableSet(ACPIPlatform(processorCount: 1))
        try tables.write(into: memory)
        let area = GuestPhysicalAddress(0xE_0000)
        let clean = try memory.readBytes(at: area, count: 0x1_0000)
        try memory.write(bytes: [UInt8](repeating: 0xEE, count: 0x1_0000), at: area)
        try tables.write(into: memory)
        #expect(try memory.readBytes(at: area, count: 0x1_0000) == clean)
    }

    @Test func whatCannotBeDescribedIsRefused() {
        #expect(throws: ACPIError.processorCount(0)) { try ACPITableSet(ACPIPlatform(processorCount: 0)) }
        #expect(throws: ACPIError.processorCount(1025)) { try ACPITableSet(ACPIPlatform(processorCount: 1025)) }
        #expect(throws: ACPIError.serialPort(4)) {
            try ACPITableSet(ACPIPlatform(processorCount: 1, serialPorts: [4]))
        }
        let huge = ACPITable(signature: "OEM1", revision: 1, body: [UInt8](repeating: 0, count: 0x1_0000))
        #expect(throws: ACPIError.self) { try ACPITableSet(ACPIPlatform(processorCount: 1, tables: [huge])) }
        #expect(throws: Never.self) { try ACPITableSet(ACPIPlatform(processorCount: 1024)) }
    }

    @Test func mcfgNamesTheConfigurationSpaceOfAllBuses() throws {
        let mcfg = try #require(try write(ACPIPlatform(processorCount: 1)).tables()["MCFG"])
        #expect(mcfg.count == 60)
        #expect(mcfg.number(44, 8) == 0xE000_0000)
        #expect(mcfg.number(54, 2) == 0xFF00)
    }
}
