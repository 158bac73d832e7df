import GuestMemory
import Testing
import X86

@testable import BootLoaders

@Suite struct PVHTests {
    let memory = try! GuestMemory(size: 64 << 20)

    /// A kernel with bss at 1 MiB, and a PVH entry 4 bytes into it.
    static func kernel(is64Bit: Bool = true) -> TinyELF {
        TinyELF(
            is64Bit: is64Bit, machine: is64Bit ? 62 : 3,
            segments: [
                TinyELF.Segment(
                    virtualAddress: is64Bit ? 0xFFFF_FFFF_8010_0000 : 0xC010_0000, physicalAddress: 0x10_0000,
                    memorySize: 0x3000),
                TinyELF.Segment(physicalAddress: 0x20_0000, contents: Array("data".utf8)),
                TinyELF.pvhNote(entry: 0x10_0004, size: is64Bit ? 8 : 4),
            ])
    }

    func read<Value: BitwiseCopyable>(_ type: Value.Type, _ address: UInt64) throws -> Value {
        try memory.read(type, at: GuestPhysicalAddress(address))
    }

    func bytes(_ address: UInt64, _ count: Int) throws -> [UInt8] {
        try memory.readBytes(at: GuestPhysicalAddress(address), count: count)
    }

    func refusal(_ elf: TinyELF) -> BootError? {
        #expect(throws: BootError.self) { try BootLoader.load(BootRequest(kernel: elf.file), into: memory) }
    }

    @Test(arguments: [true, false]) func entersAsTheNoteSays(is64Bit: Bool) throws {
        let loaded = try BootLoader.load(BootRequest(kernel: Self.kernel(is64Bit: is64Bit).file), into: memory)
        #expect(loaded.bootProtocol == .pvh)
        let state = loaded.state
        #expect(state.rip == 0x10_0004)
        #expect(state.cr0 == CR0.PE | CR0.ET && state.cr4 == 0 && state.efer == 0)
        #expect(state.cs.base == 0 && state.cs.limit == .max && state.cs.attributes == 0xC09B)
        #expect(state.ds.limit == .max && state.es == state.ds && state.ss == state.ds)
        #expect(state.tr.base == 0 && state.tr.limit == 0x67 && state.tr.attributes & 0xF == 0xB)
        #expect(state.rflags & (RFLAGS.VM | RFLAGS.IF | RFLAGS.TF) == 0)
    }

    @Test func segmentsGoToTheirPhysicalAddressesAndBssIsZero() throws {
        try memory.write(bytes: [UInt8](repeating: 0xAA, count: 0x8000), at: GuestPhysicalAddress(0x10_0000))
        _ = try BootLoader.load(BootRequest(kernel: Self.kernel().file), into: memory)
        #expect(try bytes(0x10_0000, 11) == Array("kernel text".utf8))
        #expect(try bytes(0x10_000B, 0x3000 - 11).allSatisfy { $0 == 0 })
        #expect(try bytes(0x10_3000, 1) == [0xAA])
        #expect(try bytes(0x20_0000, 4) == Array("data".utf8))
    }

    @Test func startInfoTellsOfEverything() throws {
        var request = BootRequest(
            kernel: Self.kernel().file, commandLine: "quiet", rsdp: GuestPhysicalAddress(0xE_0000))
        request.initrd = KernelFile(bytes: Array("initrd".utf8), name: "initrd", flag: "--initrd")
        request.modules = [
            BootModule(file: KernelFile(bytes: [7, 7], name: "extra", flag: "--module"), arguments: "a=1")
        ]
        let info = try BootLoader.load(request, into: memory).state.generalRegisters[GeneralRegister.RBX]
        #expect(try read(UInt32.self, info) == 0x336E_C578)
        #expect(try read(UInt32.self, info + 4) == 1)
        #expect(try read(UInt64.self, info + 32) == 0xE_0000)
        #expect(try bytes(try read(UInt64.self, info + 24), 6) == Array("quiet\0".utf8))

        #expect(try read(UInt32.self, info + 12) == 2)
        let list = try read(UInt64.self, info + 16)
        let initrd = try read(UInt64.self, list)
        #expect(initrd % 4096 == 0)
        #expect(try read(UInt64.self, list + 8) == 6)
        #expect(try read(UInt64.self, list + 16) == 0)
        #expect(try bytes(initrd, 6) == Array("initrd".utf8))
        #expect(try bytes(try read(UInt64.self, list + 32), 2) == [7, 7])
        #expect(try bytes(try read(UInt64.self, list + 32 + 16), 4) == Array("a=1\0".utf8))

        #expect(try read(UInt32.self, info + 48) == 4)
        let map = try read(UInt64.self, info + 40)
        #expect(try read(UInt64.self, map + 3 * 24) == 0x10_0000)
        #expect(try read(UInt64.self, map + 3 * 24 + 8) == 63 << 20)
        #expect(try read(UInt32.self, map + 3 * 24 + 16) == 1)
    }

    @Test func aVmlinuxWithoutTheNoteIsEnteredIn64BitMode() throws {
        var kernel = Self.kernel()
        kernel.segments.removeLast()
        kernel.entry = 0x10_0000
        let loaded = try BootLoader.load(BootRequest(kernel: kernel.file, commandLine: "quiet"), into: memory)
        #expect(loaded.bootProtocol == .linux64)
        #expect(loaded.state.rip == 0x10_0000)
        #expect(loaded.state.cr0 & CR0.PG != 0)
        let page = loaded.state.generalRegisters[GeneralRegister.RSI]
        #expect(try bytes(page + 0x202, 4) == Array("HdrS".utf8))
        #expect(try read(UInt16.self, page + 0x1FE) == 0xAA55)
        #expect(try bytes(UInt64(try read(UInt32.self, page + 0x228)), 6) == Array("quiet\0".utf8))
        #expect(try read(UInt8.self, page + 0x1E8) == 4)
    }

    @Test func theProtocolCanBeChosen() throws {
        var request = BootRequest(kernel: Self.kernel().file, bootProtocol: .linux64)
        #expect(try BootLoader.load(request, into: memory).bootProtocol == .linux64)
        request.bootProtocol = .multiboot
        let error = #expect(throws: BootError.self) { try BootLoader.load(request, into: memory) }
        #expect(error?.reason == .unsupported && error?.mend == "choose pvh")
    }

    @Test func refusesAnELFThatIsNoKernel() {
        var plain = Self.kernel()
        plain.segments.removeLast()
        plain.segments[0].virtualAddress = 0x10_0000
        #expect(refusal(plain)?.reason == .unsupported)

        var foreign = Self.kernel()
        foreign.machine = 183
        #expect(refusal(foreign)?.description.contains("is an ELF file for 64-bit ARM") == true)

        var object = Self.kernel()
        object.type = 1
        #expect(refusal(object)?.reason == .notAKernel)

        var core = Self.kernel()
        core.type = 4
        #expect(refusal(core)?.reason == .notAKernel)

        var bigEndian = Self.kernel()
        bigEndian.byteOrder = 2
        #expect(refusal(bigEndian)?.reason == .unsupported)
    }

    @Test func refusesSegmentsOverEachOther() {
        var kernel = Self.kernel()
        kernel.segments[1].physicalAddress = 0x10_2FFF
        #expect(
            refusal(kernel)?.description
                == "--kernel vmlinux: ELF segment 1 (4 bytes at 0x102fff) would overwrite ELF segment 0 at 0x100000: "
                + "link it to stand elsewhere, mostly at 1 MiB or above")
    }

    @Test(
        arguments: [
            (0, .doesNotFit), (0xFFF, .doesNotFit), (0xA_0000, .doesNotFit), (0xF_FFFF, .doesNotFit),
            (0x400_0000, .doesNotFit), (0x3FF_FFFE, .doesNotFit), (0xFEE0_0000, .doesNotFit), (1 << 45, .doesNotFit),
            (.max, .malformed), (.max - 3, .malformed),
        ] as [(UInt64, BootError.Reason)])
    func refusesSegmentsOutsideRAMOrInTheBIOS(address: UInt64, reason: BootError.Reason) {
        var kernel = Self.kernel()
        kernel.segments[1].physicalAddress = address
        kernel.segments[1].memorySize = 4
        #expect(refusal(kernel)?.reason == reason)
    }

    @Test func refusesSizesThatLie() {
        var wraps = Self.kernel()
        wraps.segments[1].memorySize = .max - 0x1F_0000
        #expect(refusal(wraps)?.reason == .malformed)

        var larger = Self.kernel()
        larger.segments[1].memorySize = 3
        #expect(refusal(larger)?.reason == .malformed)

        var pastEnd = Self.kernel()
        pastEnd.segments[1].fileSize = 0x1000
        pastEnd.segments[1].memorySize = 0x1000
        #expect(refusal(pastEnd)?.reason == .truncated)

        var offsetWraps = Self.kernel()
        offsetWraps.segments[1].fileOffset = .max
        #expect(refusal(offsetWraps)?.reason == .truncated)

        var tableWraps = Self.kernel()
        tableWraps.programHeaderOffset = .max - 8
        #expect(refusal(tableWraps)?.reason == .truncated)

        var manyHeaders = Self.kernel()
        manyHeaders.programHeaderCount = .max
        #expect(refusal(manyHeaders)?.reason == .truncated)

        var noHeaders = Self.kernel()
        noHeaders.programHeaderCount = 0
        #expect(refusal(noHeaders)?.reason == .malformed)

        var oddHeaders = Self.kernel()
        oddHeaders.programHeaderSize = 1
        #expect(refusal(oddHeaders)?.reason == .malformed)
    }

    @Test func refusesNotesThatLie() {
        var outside = Self.kernel()
        outside.segments[2] = TinyELF.pvhNote(entry: 0x50_0000)
        #expect(refusal(outside)?.reason == .malformed)

        var high = Self.kernel()
        high.segments[2] = TinyELF.pvhNote(entry: 1 << 32 | 0x10_0004, size: 8)
        #expect(refusal(high)?.reason == .malformed)

        var odd = Self.kernel()
        odd.segments[2] = TinyELF.pvhNote(entry: 0x10_0004, size: 3)
        #expect(refusal(odd)?.reason == .malformed)

        var long = Self.kernel()
        long.segments[2].contents = TinyELF.little(4, 4) + TinyELF.little(0xFFFF_FFFF, 4) + TinyELF.little(18, 4)
        #expect(refusal(long)?.reason == .malformed)

        var longName = Self.kernel()
        longName.segments[2].contents = TinyELF.little(0xFFFF_FFFE, 4) + TinyELF.little(4, 4) + TinyELF.little(18, 4)
        #expect(refusal(longName)?.reason == .malformed)

        var huge = Self.kernel()
        huge.segments[2].fileSize = .max
        #expect(refusal(huge)?.reason == .malformed)
    }

    @Test func anEntryNoteOfSomeoneElseIsNotPVH() {
        var kernel = Self.kernel()
        kernel.segments[0].virtualAddress = 0x10_0000
        kernel.segments[2] = TinyELF.pvhNote(entry: 0x10_0004, name: "Foo\0")
        #expect(refusal(kernel)?.reason == .unsupported)
    }

    @Test func cutAnywhereItIsRefusedAndNothingTraps() {
        let whole = Self.kernel().bytes
        for count in 1..<whole.count {
            let file = KernelFile(bytes: Array(whole.prefix(count)), name: "vmlinux", flag: "--kernel")
            #expect(throws: BootError.self) { try BootLoader.load(BootRequest(kernel: file), into: memory) }
        }
    }

    @Test func anyByteSpoiltNothingTraps() throws {
        let whole = Self.kernel().bytes
        for index in 4..<whole.count {
            for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] as [UInt8] {
                var bytes = whole
                bytes[index] = value
                let file = KernelFile(bytes: bytes, name: "vmlinux", flag: "--kernel")
                do throws(BootError) { _ = try BootLoader.load(BootRequest(kernel: file), into: memory) } catch {
                    #expect(error.description.hasPrefix("--kernel vmlinux: "))
                }
            }
        }
    }
}
