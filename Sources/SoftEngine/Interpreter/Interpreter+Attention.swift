import CDavit
import X86

// What happens between instructions: stops, interrupts, NMI, INIT, SIPI, the sleep in HLT.
extension Interpreter {
    /// Serves exit requests and, in HLT or waiting for a SIPI, sleeps until there is one. Non-nil to leave the run loop.
    func attend() -> RunExit? {
        let requests = davit_cpu_requests(cpu)
        if requests & DAVIT_EXIT_STOP.rawValue != 0 {
            davit_cpu_served(cpu, DAVIT_EXIT_STOP.rawValue)
            return .stopped
        }
        if requests & DAVIT_EXIT_CALL.rawValue != 0 {
            davit_cpu_served(cpu, DAVIT_EXIT_CALL.rawValue)
            // Another vCPU wants write tags dropped, or to be alone.
            gate?.leave()
            enterGuest()
        }
        if requests & DAVIT_EXIT_INTERRUPT.rawValue != 0, cpu.pointee.shadow == 0, !holdsInterrupts {
            // First the bit: what comes from now on sets it again.
            davit_cpu_served(cpu, DAVIT_EXIT_INTERRUPT.rawValue)
            guard takeEvents() else { return .tripleFault }
        }
        let isIdle = cpu.pointee.halted != 0 || system.pointee.waitsForSIPI
        if isIdle && cpu.pointee.shadow == 0 { return sleep() }
        // HLT right after STI: the shadow ends with it.
        if isIdle { cpu.pointee.shadow = 0 }
        return nil
    }

    /// Takes what the local APIC has. False after a triple fault.
    private func takeEvents() -> Bool {
        guard let apic else { return true }
        settleEndOfInterrupt()
        if apic.hasRequests {
            let requests = apic.takeRequests()
            if requests.contains(.NMI) { system.pointee.nmiPending = true }
            if requests.contains(.INIT) { initialize() }
            if requests.contains(.startUp) && system.pointee.waitsForSIPI { startUp(vector: requests.startUpVector) }
            // One that came before INIT is void.
            if requests.contains(.kick) { system.pointee.isKicked = true }
        }
        if system.pointee.waitsForSIPI { return true }
        if system.pointee.nmiPending && !system.pointee.nmiBlocked {
            system.pointee.nmiPending = false
            system.pointee.nmiBlocked = true
            davit_cpu_request(cpu, DAVIT_EXIT_INTERRUPT.rawValue)
            return deliverOrRaise(
                InterruptEvent(
                    vector: ExceptionVector.NMI.rawValue, source: .hardware, returnAddress: cpu.pointee.rip))
        }
        guard apic.hasInterrupt else {
            cpu.pointee.interrupt_waits = 0
            return true
        }
        guard cpu.pointee.rflags & RFLAGS.IF != 0 else {
            cpu.pointee.interrupt_waits = 1
            return true
        }
        guard let vector = apic.acknowledge() else { return true }
        tellStealTime()
        offerEndOfInterrupt(vector)
        system.pointee.interrupts &+= 1
        traceInterrupt(vector)
        let isAlive = deliverOrRaise(
            InterruptEvent(vector: vector, source: .hardware, returnAddress: cpu.pointee.rip))
        // Others may wait behind it: until the handler sets IF, or at once if a trap gate left it set.
        cpu.pointee.interrupt_waits = 1
        if cpu.pointee.rflags & RFLAGS.IF != 0 { davit_cpu_request(cpu, DAVIT_EXIT_INTERRUPT.rawValue) }
        return isAlive
    }

    /// Sleeps until somebody sets an exit request.
    private func sleep() -> RunExit? {
        if system.pointee.isKicked && cpu.pointee.halted != 0 {
            system.pointee.isKicked = false
            cpu.pointee.halted = 0
            return nil
        }
        let requests = davit_cpu_requests(cpu)
        let waking = DAVIT_EXIT_STOP.rawValue | DAVIT_EXIT_INTERRUPT.rawValue | DAVIT_EXIT_CALL.rawValue
        guard requests & waking == 0 else { return nil }
        let canTakeInterrupts = !system.pointee.waitsForSIPI && cpu.pointee.rflags & RFLAGS.IF != 0
        if !canTakeInterrupts {
            // Only another vCPU can wake this one. If all are so nobody ever will, unless one has been asked and is about to wake.
            gates?.fallAsleep()
            defer { gates?.wakeUp() }
            let isHopeless =
                gates?.areAllDormant(cpuid.vcpuCount) { apic?.bus.hasRequests ?? false }
                ?? !(apic?.hasRequests ?? false)
            if isHopeless && cpu.pointee.halted != 0 { return .haltedForever }
            wait(requests)
            return nil
        }
        wait(requests)
        return nil
    }

    private func wait(_ requests: UInt32) {
        gate?.leave()
        davit_cpu_wait(cpu, requests)
        enterGuest()
    }

    /// INIT (SDM vol. 3, table 9-1): as RESET, but for memory, MSRs, the time-stamp counter and x87/SSE state. All but the boot
    /// processor wait for a SIPI then.
    func initialize() {
        system.pointee.stealTimePlace = 0
        system.pointee.endOfInterruptPlace = 0
        system.pointee.endOfInterruptIsOffered = false
        system.pointee.isKicked = false
        apic?.initialize()
        resetRegisters()
        let isBoot = cpu.pointee.apic_base & 1 << 8 != 0
        system.pointee.waitsForSIPI = !isBoot
        didChangeAPICBase()
    }

    private func startUp(vector: UInt8) {
        system.pointee.waitsForSIPI = false
        let selector = UInt16(vector) << 8
        var code = segments[Int(DAVIT_CS.rawValue)]
        code.selector = selector
        code.base = UInt64(selector) << 4
        cpu.pointee.rip = 0
        setCodeSegment(code, cpl: 0)
    }

    /// What RESET and INIT have in common.
    func resetRegisters() {
        for i in 0..<16 { gpr[i] = 0 }
        gpr[GeneralRegister.RDX] = UInt64(CPUIDAnswer.signature(cpuid, cpu: cpu, apicID: apicID))
        let data = davit_segment(base: 0, limit: 0xFFFF, selector: 0, attributes: 0x93)
        for i in 0..<6 { segments[i] = data }
        segments[Int(DAVIT_CS.rawValue)] = davit_segment(
            base: 0xFFFF_0000, limit: 0xFFFF, selector: 0xF000, attributes: 0x9B)
        segments[Int(DAVIT_LDTR.rawValue)] = davit_segment(base: 0, limit: 0xFFFF, selector: 0, attributes: 0x82)
        segments[Int(DAVIT_TR.rawValue)] = davit_segment(base: 0, limit: 0xFFFF, selector: 0, attributes: 0x8B)
        cpu.pointee.gdtr = davit_table_register(base: 0, limit: 0xFFFF)
        cpu.pointee.idtr = davit_table_register(base: 0, limit: 0xFFFF)
        cpu.pointee.rip = 0xFFF0
        cpu.pointee.rflags = RFLAGS.reserved1
        cpu.pointee.cr0 = cpu.pointee.cr0 & (CR0.CD | CR0.NW) | CR0.ET
        cpu.pointee.cr2 = 0
        cpu.pointee.cr3 = 0
        cpu.pointee.cr4 = 0
        cpu.pointee.efer = 0
        cpu.pointee.xcr0 = XCR0.x87
        let dr = davit_cpu_dr(cpu)
        for i in 0..<6 { dr[i] = 0 }
        dr[6] = DR6.fixed
        dr[7] = DR7.fixed
        cpu.pointee.shadow = 0
        cpu.pointee.halted = 0
        cpu.pointee.cpl = 0
        system.pointee.nmiBlocked = false
        system.pointee.nmiPending = false
        system.pointee.debugTraps = 0
        cpu.pointee.pcid = 0
        didChangeState()
    }

    /// Derives everything that hangs on the architectural state after it was set from outside.
    func didChangeState() {
        cpu.pointee.pcid = cpu.pointee.cr4 & CR4.PCIDE != 0 ? cpu.pointee.cr3 & 0xFFF : 0
        updateCodeSize()
        updateFastCalls()
        updateBreakpoints()
        flushTLB()
        if cpu.pointee.rflags & (RFLAGS.TF | RFLAGS.RF) != 0 || tracesInstructions
            || system.pointee.isDebugged
        {
            davit_cpu_request(cpu, DAVIT_EXIT_SINGLE_STEP.rawValue)
        }
        davit_cpu_request(cpu, DAVIT_EXIT_INTERRUPT.rawValue)
    }
}

extension CPUIDAnswer {
    /// Family, model and stepping: what RESET and INIT leave in EDX.
    static func signature(_ model: CPUModel, cpu: UnsafePointer<davit_cpu>, apicID: UInt32) -> UInt32 {
        model.answer(leaf: 1, subleaf: 0, cpu: cpu, apicID: apicID).eax
    }
}
