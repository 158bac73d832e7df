import GuestMemory
import Testing
import X86

@testable import BootLoaders

@Suite struct BzImageTests {
    let memory = try! GuestMemory(size: 64 << 20)

    func read<Value: BitwiseCopyable>(_ type: Value.Type, _ address: UInt64) throws -> Value {
        try memory.read(type, at: GuestPhysicalAddress(address))
    }

    func refusal(_ image: TinyBzImage) -> BootError? {
        #expect(throws: BootError.self) { try BootLoader.load(BootRequest(kernel: image.file), into: memory) }
    }

    @Test func entersIn64BitModeAtTheSecondEntry() throws {
        let loaded = try BootLoader.load(BootRequest(kernel: TinyBzImage().file), into: memory)
        #expect(loaded.bootProtocol == .linux64)
        #expect(loaded.kernel == "bzImage 6.1.0-tiny")
        let state = loaded.state
        #expect(state.rip == TinyBzImage.loadAddress + 0x200)
        #expect(state.rflags & RFLAGS.IF == 0)
        #expect(state.efer == EFER.LME | EFER.LMA)
        #expect(state.cr4 == CR4.PAE)
        #expect(state.cr0 & (CR0.PG | CR0.PE) == CR0.PG | CR0.PE)
        #expect(state.cs.selector == 0x10 && state.ds.selector == 0x18 && state.ss.selector == 0x18)
        #expect(state.cs.attributes == 0xA09B)
        #expect(
            try memory.readBytes(at: GuestPhysicalAddress(TinyBzImage.loadAddress), count: TinyBzImage.payload.count)
                == TinyBzImage.payload)
    }

    @Test func descriptorsInTheGDTAreTheLoadedSegments() throws {
        let state = try BootLoader.load(BootRequest(kernel: TinyBzImage().file), into: memory).state
        #expect(try read(UInt64.self, state.gdtr.base + 0x10) == 0x00AF_9B00_0000_FFFF)
        #expect(try read(UInt64.self, state.gdtr.base + 0x18) == 0x00CF_9300_0000_FFFF)
    }

    @Test(arguments: [0, 0x1234, 0x3FFF_FFFF, 0x4000_0000, 0xFEE0_0030, 0xFFFF_FFFF] as [UInt64])
    func pageTablesMapAddressesToThemselves(address: UInt64) throws {
        let state = try BootLoader.load(BootRequest(kernel: TinyBzImage().file), into: memory).state
        var table = state.cr3
        for shift in [39, 30] as [UInt64] {
            let entry = try read(UInt64.self, table + (address >> shift & 511) * 8)
            #expect(entry & 0xFFF == 3)
            table = entry & ~0xFFF
        }
        let page = try read(UInt64.self, table + (address >> 21 & 511) * 8)
        #expect(page & 0xFFF == 0x83)
        #expect(page & ~0xFFF | address & 0x1F_FFFF == address)
    }

    @Test func entersIn32BitModeWhenAskedOrWhenThereIsNothingElse() throws {
        var request = BootRequest(kernel: TinyBzImage().file)
        request.bootProtocol = .linux32
        let only32 = BootRequest(kernel: TinyBzImage().with(UInt16(0), at: 0x236).file)
        for request in [request, only32] {
            let loaded = try BootLoader.load(request, into: memory)
            #expect(loaded.bootProtocol == .linux32)
            #expect(loaded.state.rip == TinyBzImage.loadAddress)
            #expect(loaded.state.cr0 == CR0.PE | CR0.ET)
            #expect(loaded.state.efer == 0 && loaded.state.cr4 == 0)
            #expect(loaded.state.cs.attributes == 0xC09B)
        }
    }

    @Test func bootParametersCarryHeaderMapCommandLineAndInitrd() throws {
        let initrd = [UInt8](repeating: 0x5A, count: 5000)
        let request = BootRequest(
            kernel: TinyBzImage().file, initrd: KernelFile(bytes: initrd, name: "initrd", flag: "--initrd"),
            commandLine: "console=ttyS0", rsdp: GuestPhysicalAddress(0xE_0000))
        let loaded = try BootLoader.load(request, into: memory)
        let page = loaded.state.generalRegisters[GeneralRegister.RSI]
        #expect(try read(UInt32.self, page + 0x202) == 0x5372_6448)
        #expect(try read(UInt8.self, page + 0x210) == 0xFF)
        #expect(try read(UInt32.self, page + 0x214) == UInt32(TinyBzImage.loadAddress))
        #expect(try read(UInt64.self, page + 0x70) == 0xE_0000)
        #expect(try read(UInt8.self, page + 0x1EF) == 0)

        let line = UInt64(try read(UInt32.self, page + 0x228))
        #expect(try memory.readBytes(at: GuestPhysicalAddress(line), count: 14) == Array("console=ttyS0\0".utf8))

        let start = UInt64(try read(UInt32.self, page + 0x218))
        #expect(try read(UInt32.self, page + 0x21C) == 5000)
        #expect(start == (64 << 20) - 8192)
        #expect(try memory.readBytes(at: GuestPhysicalAddress(start), count: 5000) == initrd)

        #expect(try read(UInt8.self, page + 0x1E8) == 4)
        let expected: [(UInt64, UInt64, UInt32)] = [
            (0, 0x9_FC00, 1), (0x9_FC00, 0x400, 2), (0xE_0000, 0x2_0000, 2), (0x10_0000, 63 << 20, 1),
        ]
        for (index, entry) in expected.enumerated() {
            let place = page + 0x2D0 + UInt64(index) * 20
            #expect(try read(UInt64.self, place) == entry.0)
            #expect(try read(UInt64.self, place + 8) == entry.1)
            #expect(try read(UInt32.self, place + 16) == entry.2)
        }
    }

    @Test func setupDataIsAListThatEndsWithAFreshSeed() throws {
        var request = BootRequest(kernel: TinyBzImage().file)
        request.setupData = [SetupData(type: 0x77, bytes: [1, 2, 3])]
        var seeds: [[UInt8]] = []
        for _ in 0..<2 {
            let page = try BootLoader.load(request, into: memory).state.generalRegisters[GeneralRegister.RSI]
            let first = try read(UInt64.self, page + 0x250)
            #expect(try read(UInt32.self, first + 8) == 0x77)
            #expect(try read(UInt32.self, first + 12) == 3)
            #expect(try memory.readBytes(at: GuestPhysicalAddress(first + 16), count: 3) == [1, 2, 3])
            let second = try read(UInt64.self, first)
            #expect(try read(UInt64.self, second) == 0)
            #expect(try read(UInt32.self, second + 8) == SetupData.rngSeed)
            seeds.append(try memory.readBytes(at: GuestPhysicalAddress(second + 16), count: 32))
        }
        #expect(seeds[0] != seeds[1])
    }

    @Test func dirtyMemoryIsLoadedLikeCleanMemory() throws {
        var request = BootRequest(
            kernel: TinyBzImage().file, initrd: KernelFile(bytes: [1, 2, 3], name: "initrd", flag: "--initrd"))
        request.providesRandomSeed = false
        let clean = try BootLoader.load(request, into: memory)
        func contents() throws -> [[UInt8]] {
            try clean.placements.filter { $0.name != "kernel" && $0.name != "the BIOS area" }.map {
                try memory.readBytes(at: GuestPhysicalAddress($0.start), count: Int($0.end - $0.start))
            }
        }
        let before = try contents()
        try memory.write(bytes: [UInt8](repeating: 0xFF, count: 64 << 20), at: GuestPhysicalAddress(0))
        #expect(try BootLoader.load(request, into: memory).state == clean.state)
        #expect(try contents() == before)
    }

    @Test func initrdStaysBelowTheKernelsLimit() throws {
        let request = BootRequest(
            kernel: TinyBzImage().with(UInt32(0x2FF_FFFF), at: 0x22C).file,
            initrd: KernelFile(bytes: [1], name: "initrd", flag: "--initrd"))
        let loaded = try BootLoader.load(request, into: memory)
        #expect(loaded.placements.first { $0.name == "initrd" }?.end == 0x300_0000)
    }

    @Test func refusesAnOldProtocol() {
        let error = refusal(TinyBzImage().with(UInt16(0x0209), at: 0x206))
        #expect(error?.reason == .unsupported)
        #expect(
            error?.description == "--kernel vmlinuz: speaks Linux boot protocol 2.9, and Davit 2.10 or later: "
                + "give a kernel from Linux 2.6.31 or later")
    }

    @Test func refusesAzImage() {
        #expect(refusal(TinyBzImage().with(UInt8(0), at: 0x211))?.reason == .unsupported)
    }

    @Test func refusesHeadersThatLie() {
        #expect(refusal(TinyBzImage().with(UInt16(0), at: 0x1FE))?.reason == .malformed)
        #expect(refusal(TinyBzImage().with(UInt8(0x10), at: 0x201))?.reason == .malformed)
        #expect(refusal(TinyBzImage().with(UInt32(0), at: 0x1F4))?.reason == .malformed)
        #expect(refusal(TinyBzImage().with(UInt32.max, at: 0x1F4))?.reason == .truncated)
        #expect(refusal(TinyBzImage().with(UInt8.max, at: 0x1F1))?.reason == .truncated)
    }

    @Test func refusesWildLoadAddresses() {
        #expect(refusal(TinyBzImage().with(UInt64.max - 0xFFF, at: 0x258))?.reason == .malformed)
        #expect(refusal(TinyBzImage().with(UInt64(0x1_0000_0000), at: 0x258))?.reason == .doesNotFit)
        #expect(refusal(TinyBzImage().with(UInt64(0x800), at: 0x258))?.reason == .doesNotFit)
        #expect(refusal(TinyBzImage().with(UInt64(0xE_0000), at: 0x258))?.reason == .doesNotFit)
        #expect(refusal(TinyBzImage().with(UInt64(0x500_0000), at: 0x258))?.reason == .doesNotFit)
        #expect(refusal(TinyBzImage().with(UInt32.max, at: 0x260))?.reason == .doesNotFit)
    }

    @Test func saysHowMuchMemoryAKernelNeeds() throws {
        let small = try GuestMemory(size: 16 << 20)
        let error = #expect(throws: BootError.self) {
            try BootLoader.load(BootRequest(kernel: TinyBzImage().file), into: small)
        }
        #expect(error?.mend == "give at least --memory 24M")
    }

    @Test func cutAnywhereItIsRefusedAndNothingTraps() {
        let whole = TinyBzImage().image.bytes
        for count in stride(from: 1, to: whole.count - 15, by: 7) {
            let file = KernelFile(bytes: Array(whole.prefix(count)), name: "vmlinuz", flag: "--kernel")
            #expect(throws: BootError.self) { try BootLoader.load(BootRequest(kernel: file), into: memory) }
        }
    }

    @Test func refusesALongCommandLine() {
        var request = BootRequest(kernel: TinyBzImage().file)
        request.commandLine = String(repeating: "x", count: 2047)
        #expect(throws: Never.self) { try BootLoader.load(request, into: memory) }
        request.commandLine += "x"
        let error = #expect(throws: BootError.self) { try BootLoader.load(request, into: memory) }
        #expect(error?.description == "--cmdline: 2048 bytes are more than the 2047 that vmlinuz takes: shorten it")
    }

    @Test func refusesAnInitrdThatDoesNotFit() {
        for megabytes in [44, 65] {
            var request = BootRequest(kernel: TinyBzImage().file)
            request.initrd = KernelFile(
                bytes: [UInt8](repeating: 0, count: megabytes << 20), name: "big.cpio", flag: "--initrd")
            let error = #expect(throws: BootError.self) { try BootLoader.load(request, into: memory) }
            #expect(error?.reason == .doesNotFit)
            #expect(error?.flag == "--initrd" && error?.file == "big.cpio")
        }
    }

    @Test func refusesModulesAndOtherProtocols() {
        var request = BootRequest(kernel: TinyBzImage().file)
        request.modules = [BootModule(file: KernelFile(bytes: [1], name: "module", flag: "--module"))]
        #expect(throws: BootError.self) { try BootLoader.load(request, into: memory) }
        request.modules = []
        request.bootProtocol = .multiboot
        let error = #expect(throws: BootError.self) { try BootLoader.load(request, into: memory) }
        #expect(error?.mend == "choose linux64 or linux32")
    }
}
