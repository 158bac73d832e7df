import MachineModel
import Testing
import X86

/// What a debugger asks of a vCPU, on every engine that this host has.
@Suite(.serialized, .timeLimit(.minutes(2))) struct GuestDebugTests {
    private func guest(_ engine: ComparedEngine, _ source: String, bits: Int = 64) throws -> ConformanceGuest {
        try ConformanceGuest(engine, (bits == 64 ? ".code64\n" : "") + source + "\n" + ConformanceGuest.end, bits: bits)
    }

    private func request(
        at addresses: Set<UInt64> = [], watching watchpoints: [Watchpoint] = [], steps: Bool = false
    ) -> DebugRequest {
        var request = DebugRequest()
        request.breakpoints = addresses
        request.watchpoints = watchpoints
        request.singleStep = steps
        return request
    }

    /// `nop` at 0x1000, a loop of three at 0x1006.
    private let counting = "nop\nmov ebx, 3\n1: inc ecx\ndec ebx\njnz 1b"

    @Test(arguments: ComparedEngine.all) func breakpointStepOverAndGoOn(engine: ComparedEngine) throws {
        let guest = try guest(engine, counting)
        let vcpu = guest.engine.vcpus[0]
        try vcpu.setDebug(request(at: [0x1006]))
        for round in 0..<UInt64(3) {
            #expect(vcpu.run() == .debug(.breakpoint))
            let state = guest.state
            #expect(state.rip == 0x1006 && state.generalRegisters[GeneralRegister.RCX] == round)
            // Before the instruction, however often.
            try vcpu.setDebug(request(steps: true))
            #expect(vcpu.run() == .debug(.singleStep))
            #expect(guest.state.rip == 0x1008 && guest.state.generalRegisters[GeneralRegister.RCX] == round + 1)
            try vcpu.setDebug(request(at: [0x1006]))
        }
        try vcpu.setDebug(DebugRequest())
        #expect(try guest.run() == .stopped)
        #expect(guest.state.generalRegisters[GeneralRegister.RCX] == 3)
    }

    @Test(arguments: ComparedEngine.all) func stepsInRealMode(engine: ComparedEngine) throws {
        let guest = try guest(engine, "mov ax, 7\npush ax\npop bx\nnop", bits: 16)
        let vcpu = guest.engine.vcpus[0]
        try vcpu.setDebug(request(steps: true))
        for rip in [UInt64(0x1003), 0x1004, 0x1005, 0x1006] {
            #expect(vcpu.run() == .debug(.singleStep))
            #expect(guest.state.rip == rip)
        }
        #expect(guest.state.generalRegisters[GeneralRegister.RBX] == 7)
        try vcpu.setDebug(DebugRequest())
        #expect(try guest.run() == .stopped)
    }

    @Test(arguments: ComparedEngine.all) func watchpoints(engine: ComparedEngine) throws {
        let guest = try guest(
            engine,
            """
            mov eax, [0x20000]
            mov dword ptr [0x20008], 1
            mov word ptr [0x20003], 2
            mov eax, [0x1FFFD]
            mov eax, [0x20010]
            """)
        let vcpu = guest.engine.vcpus[0]
        let write = Watchpoint(kind: .write, address: 0x20000, size: 4)
        let access = Watchpoint(kind: .access, address: 0x20010, size: 8)
        try vcpu.setDebug(request(watching: [write, access]))
        // Not the read, and not its neighbour; one byte of it is enough.
        #expect(vcpu.run() == .debug(.watchpoint(write)))
        #expect(try guest.memory.read(UInt16.self, at: .init(0x20003)) == 2)
        #expect(vcpu.run() == .debug(.watchpoint(access)))
        #expect(vcpu.run() == .stopped)
    }

    @Test(arguments: ComparedEngine.all) func changedRegistersAndMemoryCount(engine: ComparedEngine) throws {
        let guest = try guest(engine, counting + "\nmov eax, [0x20000]\nout 0xE9, eax")
        let vcpu = guest.engine.vcpus[0]
        try vcpu.setDebug(request(at: [0x1006]))
        #expect(vcpu.run() == .debug(.breakpoint))
        var state = guest.state
        state.generalRegisters[GeneralRegister.RBX] = 5
        try vcpu.restore(state)
        try guest.memory.write(UInt32(0x1234), at: .init(0x20000))
        try vcpu.setDebug(DebugRequest())
        #expect(try guest.run() == .stopped)
        #expect(guest.state.generalRegisters[GeneralRegister.RCX] == 5)
        #expect(guest.reports == [0x1234])
    }

    /// A debug register of the guest's own, and its single-step flag, trap as ever while the debugger watches too.
    @Test(arguments: ComparedEngine.all) func theGuestsOwnBreakpoints(engine: ComparedEngine) throws {
        let guest = try ConformanceGuest(
            engine,
            ConformanceGuest.withHandlers(
                """
                lea rax, [rip + 2f]
                mov dr0, rax
                mov eax, 0x402
                mov dr7, rax
                lea r15, [rip + 3f]
                nop
                2: nop
                3: xor eax, eax
                mov dr7, rax
                mov dword ptr [0x20000], 1
                """), bits: 64)
        let vcpu = guest.engine.vcpus[0]
        let watchpoint = Watchpoint(kind: .write, address: 0x20000, size: 4)
        try vcpu.setDebug(request(watching: [watchpoint]))
        #expect(vcpu.run() == .debug(.watchpoint(watchpoint)))
        // #DB, without an error code.
        #expect(guest.reports == [1, 0])
        #expect(vcpu.run() == .stopped)
    }

    /// In user mode, which KVM runs at the host's speed when nobody debugs.
    @Test(arguments: ComparedEngine.all) func userMode(engine: ComparedEngine) throws {
        let guest = try guest(
            engine,
            """
            mov eax, 0x10
            mov word ptr [0xA066], 0x68
            push 0x23
            push 0x6000
            push 0x3002
            push 0x1B
            lea rax, [rip + 1f]
            push rax
            iretq
            1: mov ebx, 1
            mov ecx, 2
            """)
        let vcpu = guest.engine.vcpus[0]
        // Its place: what comes behind IRETQ.
        let code = try guest.memory.readBytes(at: .init(ConformanceGuest.origin), count: 64)
        let iret = try #require((0..<63).first { code[$0] == 0x48 && code[$0 + 1] == 0xCF })
        let place = ConformanceGuest.origin + UInt64(iret) + 2
        try vcpu.setDebug(request(at: [place + 5]))
        #expect(vcpu.run() == .debug(.breakpoint))
        #expect(guest.state.rip == place + 5 && guest.state.ss.selector == 0x23)
        #expect(guest.state.generalRegisters[GeneralRegister.RBX] == 1)
        try vcpu.setDebug(request(steps: true))
        #expect(vcpu.run() == .debug(.singleStep))
        #expect(guest.state.generalRegisters[GeneralRegister.RCX] == 2)
        try vcpu.setDebug(DebugRequest())
        #expect(try guest.run() == .stopped)
    }
}
