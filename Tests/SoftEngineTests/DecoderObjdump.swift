import Glibc

/// GNU objdump as a second opinion on length and mnemonic.
struct Objdump {
    struct Line {
        var length: Int
        /// Without prefixes; "(bad)" where it knows no such instruction.
        var mnemonic: String
        var text: String
        /// objdump showed prefixes as instructions of their own, and forgot them for what follows.
        var isSplit: Bool
    }

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// Each case gets a slot, whose tail of NOPs brings objdump back in step before the next one.
    static let slotSize = 32

    private static let prefixes: Set<String> = [
        "lock", "rep", "repz", "repnz", "data16", "data32", "addr32", "addr16", "cs", "ds", "es", "ss", "fs", "gs",
        "bnd",
        "notrack", "xacquire", "xrelease",
    ]

    /// One line for each case: the instruction with which it begins.
    static func disassemble(_ cases: [[UInt8]], codeSize: UInt32) throws -> [Line] {
        var image: [UInt8] = []
        image.reserveCapacity(cases.count * slotSize)
        for bytes in cases {
            image += bytes
            image += Array(repeating: 0x90, count: slotSize - bytes.count)
        }
        var template = Array("/tmp/davit-objdump-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        guard descriptor >= 0 else { throw Failure(description: "cannot write \(path)") }
        defer { unlink(path) }
        let written = write(descriptor, image, image.count)
        close(descriptor)
        guard written == image.count else { throw Failure(description: "cannot write \(path)") }

        let machine = codeSize == 8 ? "i386:x86-64" : codeSize == 4 ? "i386" : "i8086"
        let command = "objdump -D -z -w -b binary -m \(machine) -M intel --no-show-raw-insn \(path) 2>/dev/null"
        guard let pipe = popen(command, "r") else { throw Failure(description: "cannot run objdump") }
        var lines: [(address: Int, text: String)] = []
        var buffer = [CChar](repeating: 0, count: 512)
        while fgets(&buffer, Int32(buffer.count), pipe) != nil {
            let line = buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            guard let colon = line.utf8.firstIndex(of: UInt8(ascii: ":")),
                let address = Int(line[..<colon].drop { $0 == " " }, radix: 16)
            else { continue }
            lines.append((address, String(line[line.utf8.index(after: colon)...].drop { $0 == "\t" }.dropLast())))
        }
        guard pclose(pipe) == 0, !lines.isEmpty else {
            throw Failure(description: "objdump is missing or failed: apt-get install binutils")
        }
        return try collect(lines, count: cases.count, end: image.count)
    }

    private static func collect(_ lines: [(address: Int, text: String)], count: Int, end: Int) throws -> [Line] {
        var result: [Line] = []
        var index = 0
        for slot in 0..<count {
            let start = slot * slotSize
            while index < lines.count && lines[index].address < start { index += 1 }
            guard index < lines.count, lines[index].address == start else {
                throw Failure(description: "objdump lost step at \(start)")
            }
            let first = index
            var text = ""
            var mnemonic: String?
            while mnemonic == nil && index < lines.count {
                let words = lines[index].text.split(separator: " ")
                text += lines[index].text + " "
                mnemonic = words.first { !isPrefix($0) }.map(String.init)
                index += 1
            }
            let next = index < lines.count ? lines[index].address : end
            result.append(Line(length: next - start, mnemonic: mnemonic ?? "", text: text, isSplit: index > first + 1))
        }
        return result
    }

    private static func isPrefix(_ word: Substring) -> Bool {
        prefixes.contains(String(word)) || word.hasPrefix("rex")
    }
}
