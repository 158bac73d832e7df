import GuestMemory
import Testing
import X86

@testable import BootLoaders

@Suite struct Multiboot2Tests {
    let memory = try! GuestMemory(size: 64 << 20)

    /// A header of these tags, each its number, its flags and its words, with an end tag unless told otherwise.
    private static func header(_ tags: [(UInt16, UInt16, [UInt32])], hasEnd: Bool = true) -> [UInt8] {
        var bytes: [UInt8] = []
        for (type, flags, words) in tags + (hasEnd ? [(0, 0, [])] : []) {
            bytes += TinyELF.little(UInt64(type), 2) + TinyELF.little(UInt64(flags), 2)
            bytes += TinyELF.little(UInt64(8 + words.count * 4), 4) + words.flatMap { TinyELF.little(UInt64($0), 4) }
            while bytes.count % 8 != 0 { bytes.append(0) }
        }
        let magic: UInt32 = 0xE852_50D6
        let length = UInt32(16 + bytes.count)
        return [magic, 0, length, 0 &- magic &- length].flatMap { TinyELF.little(UInt64($0), 4) } + bytes
    }

    private static func kernel(_ tags: [(UInt16, UInt16, [UInt32])] = []) -> [UInt8] {
        var kernel = MultibootTests.kernel()
        kernel.preamble = [UInt8](repeating: 0, count: (8 - kernel.preambleOffset % 8) % 8) + header(tags)
        return kernel.bytes
    }

    private func file(_ bytes: [UInt8]) -> KernelFile { KernelFile(bytes: bytes, name: "kernel", flag: "--kernel") }

    private func refusal(_ bytes: [UInt8]) -> BootError? {
        #expect(throws: BootError.self) { try BootLoader.load(BootRequest(kernel: file(bytes)), into: memory) }
    }

    /// The information's tags by number, each without its head.
    private func information(at address: UInt64) throws -> [(type: UInt32, bytes: ByteImage)] {
        let size = Int(try memory.read(UInt32.self, at: GuestPhysicalAddress(address)))
        let image = ByteImage(try memory.readBytes(at: GuestPhysicalAddress(address), count: size))
        var tags: [(type: UInt32, bytes: ByteImage)] = []
        var place = 8
        while place < size {
            let length = Int(image.read(UInt32.self, at: place + 4))
            tags.append((image.read(UInt32.self, at: place), ByteImage(Array(image.bytes[place + 8..<place + length]))))
            place += (length + 7) & ~7
        }
        return tags
    }

    @Test func entersWithItsMagicNumberAndTellsOfEverything() throws {
        var request = BootRequest(kernel: file(Self.kernel([(1, 0, [4, 6])])), commandLine: "noreboot")
        request.modules = [
            BootModule(file: KernelFile(bytes: [UInt8](repeating: 1, count: 4097), name: "a", flag: "--module")),
            BootModule(file: KernelFile(bytes: [2], name: "b", flag: "--module"), arguments: "x y"),
        ]
        let loaded = try BootLoader.load(request, into: memory)
        #expect(loaded.bootProtocol == .multiboot2)
        #expect(loaded.state.generalRegisters[GeneralRegister.RAX] == 0x36D7_6289)
        #expect(loaded.state.rip == 0x10_0002)
        let place = loaded.state.generalRegisters[GeneralRegister.RBX]
        #expect(place % 8 == 0)
        let tags = try information(at: place)
        #expect(tags.map(\.type) == [1, 2, 3, 3, 4, 6, 0])
        #expect(tags[0].bytes.bytes == Array("kernel noreboot\0".utf8))
        #expect(tags[2].bytes.read(UInt32.self, at: 0) == 0x10_4000)
        #expect(tags[2].bytes.read(UInt32.self, at: 4) == 0x10_5001)
        #expect(tags[3].bytes.read(UInt32.self, at: 0) == 0x10_6000)
        #expect(tags[3].bytes.bytes.suffix(6) == Array("b x y\0".utf8))
        #expect(tags[4].bytes.read(UInt32.self, at: 0) == 639)
        #expect(tags[5].bytes.read(UInt32.self, at: 0) == 24)
        #expect(tags[5].bytes.read(UInt64.self, at: 8 + 8) == 0x9_FC00)
    }

    @Test func anEntryOfItsOwnGoesBeforeTheELFHeaders() throws {
        let loaded = try BootLoader.load(
            BootRequest(kernel: file(Self.kernel([(3, 0, [0x10_0010])]))), into: memory)
        #expect(loaded.state.rip == 0x10_0010)
    }

    @Test func addressesPlaceAKernelWithoutELF() throws {
        let tags: [(UInt16, UInt16, [UInt32])] = [
            (2, 0, [0x20_0000, 0x20_0000, 0, 0x20_1000]), (3, 0, [0x20_0008]),
        ]
        let bytes = Self.header(tags) + [1, 2, 3, 4]
        let loaded = try BootLoader.load(BootRequest(kernel: file(bytes)), into: memory)
        #expect(loaded.state.rip == 0x20_0008)
        #expect(try memory.readBytes(at: GuestPhysicalAddress(0x20_0000), count: bytes.count) == bytes)
    }

    @Test func whatAKernelInsistsOnAndNobodyHasIsRefused() throws {
        #expect(refusal(Self.kernel([(1, 0, [7])]))?.problem.contains("information 7") == true)
        #expect(refusal(Self.kernel([(77, 0, [])]))?.problem.contains("tag 77") == true)
        // The same as a wish.
        for tag in [(1, 1, [7]), (77, 1, [])] as [(UInt16, UInt16, [UInt32])] {
            let loaded = try BootLoader.load(BootRequest(kernel: file(Self.kernel([tag]))), into: memory)
            #expect(loaded.bootProtocol == .multiboot2)
        }
    }

    @Test func version1GoesFirst() throws {
        var kernel = MultibootTests.kernel()
        kernel.preamble += [UInt8](repeating: 0, count: (8 - (kernel.preambleOffset + kernel.preamble.count) % 8) % 8)
        kernel.preamble += Self.header([])
        var request = BootRequest(kernel: file(kernel.bytes))
        #expect(try BootLoader.load(request, into: memory).bootProtocol == .multiboot)
        request.bootProtocol = .multiboot2
        #expect(try BootLoader.load(request, into: memory).bootProtocol == .multiboot2)
    }

    @Test func headersThatLieAreRefused() {
        #expect(refusal(Self.header([]) + [0, 0])?.reason == .malformed)
        #expect(refusal(Self.header([(2, 0, [0x20_0000, 0x20_0000, 0, 0])]))?.reason == .malformed)
        var kernel = MultibootTests.kernel()
        kernel.preamble =
            [UInt8](repeating: 0, count: (8 - kernel.preambleOffset % 8) % 8)
            + Self.header([(4, 1, [1])], hasEnd: false)
        #expect(refusal(kernel.bytes)?.reason == .malformed)
    }

    @Test func cutOrChangedAnywhereNothingTraps() {
        let whole = Self.kernel([(1, 0, [4, 6]), (3, 0, [0x10_0010]), (2, 1, [1, 2, 3, 4])])
        for count in 1..<whole.count {
            _ = try? BootLoader.load(BootRequest(kernel: file(Array(whole.prefix(count)))), into: memory)
        }
        for place in 0..<min(whole.count, 400) {
            for value in [0, 1, 0x7F, 0xFF] as [UInt8] {
                var bytes = whole
                bytes[place] = value
                _ = try? BootLoader.load(BootRequest(kernel: file(bytes)), into: memory)
            }
        }
    }
}
