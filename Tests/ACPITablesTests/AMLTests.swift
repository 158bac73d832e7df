import GuestMemory
import Testing

@testable import ACPITables

@Suite struct AMLTests {
    @Test func integersTakeTheShortestForm() {
        #expect(AML.integer(0).bytes == [0x00])
        #expect(AML.integer(1).bytes == [0x01])
        #expect(AML.integer(0x42).bytes == [0x0A, 0x42])
        #expect(AML.integer(0x1234).bytes == [0x0B, 0x34, 0x12])
        #expect(AML.integer(0x1234_5678).bytes == [0x0C, 0x78, 0x56, 0x34, 0x12])
        #expect(AML.integer(1 << 32).bytes == [0x0E, 0, 0, 0, 0, 1, 0, 0, 0])
    }

    @Test func namesAreFilledUpAndPathsCounted() {
        #expect(AML.named("RTC", .integer(1)).bytes == Array("\u{08}RTC_\u{01}".utf8))
        #expect(AML.scope("\\_SB", []).bytes == [0x10, 0x06] + Array("\\_SB_".utf8))
        #expect(AML.named("\\_SB.COM1", .integer(0)).bytes == [0x08, 0x5C, 0x2E] + Array("_SB_COM1".utf8) + [0])
        #expect(AML.named("A.B.C", .integer(0)).bytes == [0x08, 0x2F, 3] + Array("A___B___C___".utf8) + [0])
    }

    /// The length counts its own bytes: 63 bytes are the most that one byte tells, 4,095 the most for two.
    @Test(
        arguments: [
            (0, [0x06]), (57, [0x3F]), (58, [0x41, 0x04]), (4088, [0x4F, 0xFF]), (4089, [0x81, 0x00, 0x01]),
        ] as [(Int, [UInt8])])
    func packageLengthsCountThemselves(contents: Int, length: [UInt8]) {
        let filling = AML([UInt8](repeating: 0xA3, count: contents))
        let scope = AML.scope("\\FOO", [filling])
        #expect(Array(scope.bytes[1..<1 + length.count]) == length)
        #expect(scope.bytes.count == 1 + length.count + 5 + contents)
    }

    @Test func eisaIDsAreCompressedAsTheSpecificationsExample() {
        #expect(AML.eisaID("PNP0501").bytes == [0x0C, 0x41, 0xD0, 0x05, 0x01])
        #expect(AML.eisaID("PNP0A03").bytes == [0x0C, 0x41, 0xD0, 0x0A, 0x03])
    }

    @Test func resourcesEndWithTheEndTag() {
        let resources = AML.resources([.ports(0x3F8...0x3FF), .interrupt(4)])
        let descriptors: [UInt8] = [0x47, 1, 0xF8, 3, 0xF8, 3, 1, 8, 0x22, 0x10, 0, 0x79, 0]
        #expect(resources.bytes == [0x11, UInt8(descriptors.count + 3), 0x0A, UInt8(descriptors.count)] + descriptors)
    }
}
