import Testing

@testable import ConsoleBackends

@Suite struct EscapeSequenceTests {
    /// What reaches the guest of `keys`, where ^ stands for Ctrl-A, and what is asked of the monitor.
    private func type(_ keys: String) -> (guest: String, commands: [ConsoleCommand]) {
        var escape = EscapeSequence()
        var guest: [UInt8] = []
        var commands: [ConsoleCommand] = []
        for key in keys.utf8 {
            let taken = escape.take(key == UInt8(ascii: "^") ? 1 : key)
            if let byte = taken.guest { guest.append(byte) }
            if let command = taken.command { commands.append(command) }
        }
        return (String(decoding: guest.map { $0 == 1 ? UInt8(ascii: "^") : $0 }, as: UTF8.self), commands)
    }

    @Test func plainKeysGoToTheGuest() {
        #expect(type("ls -l\r") == ("ls -l\r", []))
    }

    @Test func keysAfterControlAAreCommands() {
        #expect(type("a^xb") == ("ab", [.end]))
        #expect(type("^h^?") == ("", [.help, .help]))
        #expect(type("^b") == ("", [.sendBreak]))
    }

    @Test func controlATwiceIsOneForTheGuest() {
        #expect(type("^^") == ("^", []))
        #expect(type("^a") == ("^", []))
        #expect(type("^^x") == ("^x", []))
    }

    @Test func unknownCommandIsSwallowed() {
        #expect(type("^zls") == ("ls", []))
    }
}
