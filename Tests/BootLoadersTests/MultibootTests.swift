import GuestMemory
import Testing
import X86

@testable import BootLoaders

/// Multiboot headers as bytes.
private enum Header {
    static func plain(flags: UInt32, checksumError: UInt32 = 0) -> [UInt8] {
        let magic: UInt32 = 0x1BAD_B002
        let checksum = 0 &- magic &- flags &+ checksumError
        return [magic, flags, checksum].flatMap { TinyELF.little(UInt64($0), 4) }
    }

    static func withAddresses(
        header: UInt32, load: UInt32, loadEnd: UInt32, bssEnd: UInt32, entry: UInt32, flags: UInt32 = 1 << 16
    ) -> [UInt8] {
        plain(flags: flags) + [header, load, loadEnd, bssEnd, entry].flatMap { TinyELF.little(UInt64($0), 4) }
    }
}

@Suite struct MultibootTests {
    let memory = try! GuestMemory(size: 64 << 20)

    static func kernel(flags: UInt32 = 3, is64Bit: Bool = false) -> TinyELF {
        TinyELF(
            is64Bit: is64Bit, machine: is64Bit ? 62 : 3, entry: 0x10_0002,
            segments: [
                TinyELF.Segment(physicalAddress: 0x10_0000, memorySize: 0x2000),
                TinyELF.Segment(virtualAddress: 0x8000_0000, physicalAddress: 0x10_3000, contents: [1, 2, 3]),
            ], preamble: Header.plain(flags: flags))
    }

    func read<Value: BitwiseCopyable>(_ type: Value.Type, _ address: UInt64) throws -> Value {
        try memory.read(type, at: GuestPhysicalAddress(address))
    }

    func string(_ address: UInt64) throws -> String {
        let bytes = try memory.readBytes(at: GuestPhysicalAddress(address), count: 256)
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }

    func file(_ bytes: [UInt8]) -> KernelFile { KernelFile(bytes: bytes, name: "kernel", flag: "--kernel") }

    func refusal(_ bytes: [UInt8]) -> BootError? {
        #expect(throws: BootError.self) { try BootLoader.load(BootRequest(kernel: file(bytes)), into: memory) }
    }

    @Test(arguments: [false, true]) func entersWithTheMagicNumber(is64Bit: Bool) throws {
        let loaded = try BootLoader.load(
            BootRequest(kernel: file(Self.kernel(is64Bit: is64Bit).bytes)), into: memory)
        #expect(loaded.bootProtocol == .multiboot)
        #expect(loaded.warnings == [])
        let state = loaded.state
        #expect(state.generalRegisters[GeneralRegister.RAX] == 0x2BAD_B002)
        #expect(state.rip == 0x10_0002)
        #expect(state.cr0 & (CR0.PG | CR0.PE) == CR0.PE)
        #expect(state.cs.limit == .max && state.ds.limit == .max && state.gs.limit == .max)
        #expect(state.rflags & (RFLAGS.VM | RFLAGS.IF) == 0)
        #expect(try memory.readBytes(at: GuestPhysicalAddress(0x10_3000), count: 3) == [1, 2, 3])
    }

    @Test func aVirtualEntryIsTurnedIntoAPhysicalOne() throws {
        var kernel = Self.kernel()
        kernel.entry = 0x8000_0002
        #expect(try BootLoader.load(BootRequest(kernel: file(kernel.bytes)), into: memory).state.rip == 0x10_3002)
    }

    @Test func informationTellsOfEverything() throws {
        var request = BootRequest(kernel: file(Self.kernel().bytes), commandLine: "noreboot")
        request.initrd = KernelFile(bytes: [UInt8](repeating: 1, count: 4097), name: "first", flag: "--initrd")
        request.modules = [BootModule(file: KernelFile(bytes: [2], name: "second", flag: "--module"), arguments: "x y")]
        let info = try BootLoader.load(request, into: memory).state.generalRegisters[GeneralRegister.RBX]
        #expect(try read(UInt32.self, info) == 0b10_0100_1101)
        #expect(try read(UInt32.self, info + 4) == 639)
        #expect(try read(UInt32.self, info + 8) == 63 * 1024)
        #expect(try string(UInt64(read(UInt32.self, info + 16))) == "kernel noreboot")
        #expect(try string(UInt64(read(UInt32.self, info + 64))) == "davit")

        #expect(try read(UInt32.self, info + 20) == 2)
        let modules = UInt64(try read(UInt32.self, info + 24))
        #expect(try read(UInt32.self, modules) == 0x10_4000)
        #expect(try read(UInt32.self, modules + 4) == 0x10_5001)
        #expect(try string(UInt64(read(UInt32.self, modules + 8))) == "first")
        #expect(try read(UInt32.self, modules + 16) == 0x10_6000)
        #expect(try read(UInt32.self, modules + 20) == 0x10_6001)
        #expect(try string(UInt64(read(UInt32.self, modules + 24))) == "second x y")

        #expect(try read(UInt32.self, info + 44) == 4 * 24)
        let map = UInt64(try read(UInt32.self, info + 48))
        #expect(try read(UInt32.self, map) == 20)
        #expect(try read(UInt64.self, map + 4) == 0)
        #expect(try read(UInt64.self, map + 12) == 0x9_FC00)
        #expect(try read(UInt32.self, map + 20) == 1)
        #expect(try read(UInt64.self, map + 3 * 24 + 4) == 0x10_0000)
    }

    @Test func addressFieldsPlaceAKernelWithoutELF() throws {
        let bytes =
            [UInt8](repeating: 0x90, count: 16)
            + Header.withAddresses(
                header: 0x20_0010, load: 0x20_0000, loadEnd: 0x20_0034, bssEnd: 0x20_1000, entry: 0x20_0004)
            + [0xAB, 0xCD, 0xEF, 0x01, 0x55, 0x55]
        try memory.write(bytes: [UInt8](repeating: 0xEE, count: 0x2000), at: GuestPhysicalAddress(0x20_0000))
        let loaded = try BootLoader.load(BootRequest(kernel: file(bytes)), into: memory)
        #expect(loaded.state.rip == 0x20_0004)
        #expect(
            try memory.readBytes(at: GuestPhysicalAddress(0x20_0000), count: 0x34) == Array(bytes.prefix(0x34)))
        #expect(try memory.readBytes(at: GuestPhysicalAddress(0x20_0034), count: 0x1000 - 0x34).allSatisfy { $0 == 0 })
        #expect(try read(UInt8.self, 0x20_1000) == 0xEE)
    }

    @Test func zeroEndsMeanTheWholeFileAndNoBss() throws {
        let bytes =
            Header.withAddresses(header: 0x20_0000, load: 0x20_0000, loadEnd: 0, bssEnd: 0, entry: 0x20_0020)
            + [1, 2, 3, 4]
        let loaded = try BootLoader.load(BootRequest(kernel: file(bytes)), into: memory)
        #expect(loaded.placements.contains(Placement(name: "kernel", start: 0x20_0000, end: 0x20_0024)))
    }

    @Test func headerIsFoundUpToTheLastPlaceIn8KiBAndNoFurther() throws {
        for (place, found) in [(8192 - 12, true), (8192 - 8, false), (2, false)] {
            var kernel = Self.kernel()
            let gap = max(0, place - kernel.preambleOffset)
            kernel.preamble = [UInt8](repeating: 0, count: gap) + (place == 2 ? [0, 0] : []) + Header.plain(flags: 0)
            let request = BootRequest(kernel: file(kernel.bytes))
            if found {
                #expect(try BootLoader.load(request, into: memory).bootProtocol == .multiboot)
            } else {
                #expect(throws: BootError.self) { try BootLoader.load(request, into: memory) }
            }
        }
    }

    @Test func aWrongChecksumIsNoHeader() {
        var kernel = Self.kernel()
        kernel.preamble = Header.plain(flags: 0, checksumError: 1)
        #expect(refusal(kernel.bytes)?.reason == .unsupported)
    }

    @Test func aWishForADisplayIsAnsweredByAWarning() throws {
        var kernel = Self.kernel()
        kernel.preamble = Header.plain(flags: 0b111) + [UInt8](repeating: 0, count: 36)
        let loaded = try BootLoader.load(BootRequest(kernel: file(kernel.bytes)), into: memory)
        #expect(loaded.warnings == ["the kernel asks for a display, and the machine has none"])
    }

    @Test func refusesFlagsThatNobodyKnows() {
        #expect(refusal(Self.kernel(flags: 1 << 5).bytes)?.reason == .unsupported)
    }

    @Test func refusesAKernelWithNeitherELFNorAddresses() {
        #expect(refusal(Header.plain(flags: 0) + [0, 0, 0, 0])?.reason == .malformed)
    }

    @Test func refusesAnEntryOutsideTheKernel() {
        var kernel = Self.kernel()
        kernel.entry = 0x50_0000
        #expect(refusal(kernel.bytes)?.reason == .malformed)
    }

    @Test(
        arguments: [
            // Header before the load address; header further from it than in the file.
            (0x1F_FFFC, 0x20_0000, 0, 0, 0x20_0000, .malformed), (0x20_0004, 0x20_0000, 0, 0, 0x20_0004, .malformed),
            // Ends before the beginning; bss before the end.
            (0x20_0000, 0x20_0000, 0x10_0000, 0, 0x20_0000, .malformed),
            (0x20_0000, 0x20_0000, 0x20_0020, 0x20_0010, 0x20_0000, .malformed),
            // Entry outside.
            (0x20_0000, 0x20_0000, 0, 0, 0x30_0000, .malformed), (0x20_0000, 0x20_0000, 0, 0, 0, .malformed),
            // More than the file has; more than the machine has; at address zero; in the BIOS; past 4 GiB.
            (0x20_0000, 0x20_0000, 0x30_0000, 0, 0x20_0000, .truncated),
            (0x20_0000, 0x20_0000, 0x20_0020, 0xFFFF_FFFF, 0x20_0000, .doesNotFit), (0, 0, 0, 0, 0, .doesNotFit),
            (0xF_0000, 0xF_0000, 0, 0, 0xF_0000, .doesNotFit),
            (0xFFFF_FFF0, 0xFFFF_FFF0, 0, 0, 0xFFFF_FFF0, .doesNotFit),
        ] as [(UInt32, UInt32, UInt32, UInt32, UInt32, BootError.Reason)])
    func refusesAddressesThatLie(
        header: UInt32, load: UInt32, loadEnd: UInt32, bssEnd: UInt32, entry: UInt32, reason: BootError.Reason
    ) {
        let bytes =
            Header.withAddresses(header: header, load: load, loadEnd: loadEnd, bssEnd: bssEnd, entry: entry)
            + [UInt8](repeating: 0x90, count: 32)
        #expect(refusal(bytes)?.reason == reason)
    }

    @Test func cutAnywhereItIsRefusedAndNothingTraps() {
        let whole = Self.kernel().bytes
        for count in 1..<whole.count { #expect(refusal(Array(whole.prefix(count))) != nil) }
    }

    @Test func refusesModulesThatDoNotFit() {
        var request = BootRequest(kernel: file(Self.kernel().bytes))
        request.modules = (0..<3).map {
            BootModule(
                file: KernelFile(bytes: [UInt8](repeating: 0, count: 25 << 20), name: "m\($0)", flag: "--module"))
        }
        let error = #expect(throws: BootError.self) { try BootLoader.load(request, into: memory) }
        #expect(error?.file == "m2" && error?.reason == .doesNotFit)
    }
}
