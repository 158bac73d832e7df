import DavitTesting
import Testing

@testable import GDBServer

@Suite struct GDBPacketTests {
    private func read(_ text: String) -> [GDBPacketReader.Event] {
        var reader = GDBPacketReader()
        return reader.read(Array(text.utf8))
    }

    @Test func packetsAcknowledgementsAndInterruptions() {
        #expect(read("+$g#67\u{3}-") == [.packet(Array("g".utf8)), .interrupt, .resend])
        #expect(read("$#00") == [.packet([])])
    }

    @Test func packetInPieces() {
        var reader = GDBPacketReader()
        #expect(reader.read(Array("$m10".utf8)).isEmpty)
        #expect(reader.read(Array(",4#".utf8)).isEmpty)
        #expect(reader.read(Array("2".utf8)).isEmpty)
        #expect(reader.read(Array("E".utf8)) == [.packet(Array("m10,4".utf8))])
    }

    @Test(arguments: ["$g#68", "$g#zz", "$g##6", "$\u{7F}#00"]) func damage(text: String) {
        #expect(read(text) == [.damaged])
    }

    @Test func whatComesAfterDamageIsRead() {
        #expect(read("noise$g#00$g#67") == [.damaged, .packet(Array("g".utf8))])
        // Broken off, and begun again.
        #expect(read("$m1000$g#67") == [.packet(Array("g".utf8))])
    }

    @Test func packetThatIsTooLong() {
        let long = Array(repeating: UInt8(ascii: "A"), count: GDBPacketReader.maximumPacket + 1)
        var reader = GDBPacketReader()
        #expect(reader.read(GDBPacket.frame(long)) == [.damaged])
        #expect(reader.read(GDBPacket.frame(Array(long.dropLast()))) == [.packet(Array(long.dropLast()))])
    }

    @Test func framesEscapeWhatFramesAreMadeOf() {
        #expect(GDBPacket.frame(Array("OK".utf8)) == Array("$OK#9a".utf8))
        #expect(GDBPacket.frame(Array("$#}*".utf8)) == Array("$}\u{4}}\u{3}}]}\u{A}#62".utf8))
    }

    @Test(arguments: [
        ("1234", "127.0.0.1:1234"), ("0.0.0.0:9", "0.0.0.0:9"), ("[::1]:65535", "[::1]:65535"),
        ("unix:/tmp/x", "/tmp/x"),
    ]) func addresses(text: String, description: String) {
        #expect(GDBAddress(parsing: text)?.description == description)
    }

    @Test(arguments: [
        "", "0", "65536", "-1", "host:1", "1.2.3:4", "::1:4", "[::1]", "unix:",
        "unix:" + String(repeating: "x", count: 108),
        ":1",
    ]) func addressesThatAreNone(text: String) {
        #expect(GDBAddress(parsing: text) == nil)
    }
}
