import CDavit
import X86

// The run loop. Exit requests are looked at between blocks; single steps, shadows and breakpoints go instruction by instruction.
extension Interpreter {
    enum RunExit {
        case stopped
        case tripleFault
        /// HLT with interrupts off, and nobody left to wake it.
        case haltedForever
        /// For the debugger: `DebuggerState.stop`.
        case debug
    }

    /// Runs the guest until something ends it.
    func run() -> RunExit {
        enterGuest()
        defer { gate?.leave() }
        while true {
            if let exit = turn() { return exit }
        }
    }

    /// Looks at requests, then runs a block. Non-nil to leave the run loop.
    @inline(__always)
    func turn() -> RunExit? {
        if needsAttention {
            switch lookUp() {
            case .goOn: break
            case .again: return nil
            case .leave(let exit): return exit
            }
        }
        return runBlock(atMost: InstructionCache.longestBlock) ? nil : .tripleFault
    }

    /// Something may have to be done before the next instruction: see `lookUp`.
    @inline(__always)
    var needsAttention: Bool { davit_cpu_requests(cpu) | cpu.pointee.halted | cpu.pointee.shadow != 0 }

    enum LookUp {
        case goOn
        /// Nothing was run, or one instruction was.
        case again
        case leave(RunExit)
    }

    /// Serves requests; sleeps in HLT; carries out one instruction by itself where single steps or a shadow ask for it.
    func lookUp() -> LookUp {
        if let exit = attend() { return .leave(exit) }
        if cpu.pointee.halted != 0 || system.pointee.waitsForSIPI { return .again }
        if davit_cpu_requests(cpu) & DAVIT_EXIT_SINGLE_STEP.rawValue != 0 || cpu.pointee.shadow != 0 {
            if system.pointee.isDebugged { return debuggedStep() }
            return step() ? .again : .leave(.tripleFault)
        }
        return .goOn
    }

    /// One instruction, whatever asks for attention. False after a triple fault.
    func runOne() -> Bool {
        enterGuest()
        defer { gate?.leave() }
        return step()
    }

    /// Runs one block, or its first instructions. False after a triple fault.
    @inline(__always)
    func runBlock(atMost most: Int) -> Bool {
        do throws(GuestFault) {
            guard let block = try findBlock() else { return step() }
            var i = Int(block.pointee.first)
            system.pointee.blockEnd = i &+ min(Int(block.pointee.count), most)
            let first = i
            defer { cpu.pointee.instructions &+= UInt64(i &- first) }
            while i < system.pointee.blockEnd {
                let instruction = cache.instructions + i
                let rip = cpu.pointee.rip
                let next = advanced(rip, by: instruction.pointee.length)
                cpu.pointee.next_rip = next
                try execute(instruction.pointee)
                i &+= 1
                cpu.pointee.rip = cpu.pointee.next_rip
                if cpu.pointee.next_rip != next {
                    recordBranch(from: rip, to: cpu.pointee.next_rip)
                    break
                }
            }
            finishCodeWrite()
            // SYSRET that sets TF traps itself.
            return system.pointee.debugTraps == 0 || deliverDebugTrap()
        } catch {
            finishCodeWrite()
            return raise(error)
        }
    }

    @inline(__always)
    private func advanced(_ rip: UInt64, by length: UInt8) -> UInt64 {
        let next = rip &+ UInt64(length)
        return is64Bit ? next : next & 0xFFFF_FFFF
    }

    /// Carries out one instruction with all that can happen around it. False after a triple fault.
    func step() -> Bool {
        var instruction = Instruction()
        let shadow = cpu.pointee.shadow
        let flags = cpu.pointee.rflags
        do throws(GuestFault) {
            let linear = try fetchAddress(cpu.pointee.rip)
            if flags & RFLAGS.RF == 0 && shadow != 2 {
                let hits = instructionBreakpoints(at: linear)
                if hits != 0 { throw debugFault(hits) }
            }
            try fetchSingle(into: &instruction)
            let rip = cpu.pointee.rip
            let next = advanced(rip, by: instruction.length)
            cpu.pointee.next_rip = next
            cpu.pointee.shadow = 0
            traceInstruction(instruction)
            try execute(instruction)
            cpu.pointee.instructions &+= 1
            cpu.pointee.rip = cpu.pointee.next_rip
            if cpu.pointee.rip != next { recordBranch(from: rip, to: cpu.pointee.rip) }
        } catch {
            cpu.pointee.shadow = error == .declined ? shadow : 0
            system.pointee.debugTraps = 0
            debugger.hit = nil
            finishCodeWrite()
            return raise(error)
        }
        finishCodeWrite()
        if flags & RFLAGS.RF != 0 && instruction.operation != .iret { cpu.pointee.rflags &= ~RFLAGS.RF }
        if traps(after: instruction.operation, flags: flags) { system.pointee.debugTraps |= DR6.BS }
        // MOV SS holds the trap off until the instruction after it.
        if system.pointee.debugTraps != 0 && cpu.pointee.shadow != 2 { return deliverDebugTrap() }
        updateStepping()
        return true
    }

    /// A single-step trap follows the instruction. SYSCALL and SYSRET go by the new TF, all others by the old one.
    private func traps(after operation: Operation, flags: UInt64) -> Bool {
        switch operation {
        case .int, .int3, .into, .int1: false
        case .syscall, .sysret: cpu.pointee.rflags & RFLAGS.TF != 0
        default: flags & RFLAGS.TF != 0
        }
    }

    private func deliverDebugTrap() -> Bool {
        let bits = system.pointee.debugTraps
        system.pointee.debugTraps = 0
        davit_cpu_dr(cpu)[6] = davit_cpu_dr(cpu)[6] & ~0xF | bits
        let event = InterruptEvent(
            vector: ExceptionVector.DB.rawValue, source: .hardware, returnAddress: cpu.pointee.rip)
        let isAlive = deliverOrRaise(event)
        updateStepping()
        return isAlive
    }

    /// Goes back to running blocks when nothing asks for single steps any more.
    private func updateStepping() {
        if cpu.pointee.rflags & (RFLAGS.TF | RFLAGS.RF) == 0 && system.pointee.breakpoints == 0
            && system.pointee.debugTraps == 0 && !tracesInstructions && !system.pointee.isDebugged
        {
            davit_cpu_served(cpu, DAVIT_EXIT_SINGLE_STEP.rawValue)
        }
    }

    /// Among guest instructions from here on.
    func enterGuest() {
        if let gate, gate.enter() { serveFlushRequests() }
    }

    /// Drops all write tags for the vCPUs that wait for it.
    func serveFlushRequests() {
        guard let gate else { return }
        let request = gate.pendingRequests
        dropAllWriteTags()
        gate.didFlush(request)
    }
}
