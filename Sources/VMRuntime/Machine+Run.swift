import GuestMemory
import HostLinux
import MachineModel

extension Machine {
    /// How long a guest that has reported a panic may take to reset the machine by itself (Linux: `panic=`), in milliseconds.
    private static let panicPatience: Int32 = 3000

    /// Runs the guest on threads of its own until something ends it; resets begin anew. To be called once. `onStart` is called when
    /// the kernel has been loaded, and nothing but the guest itself can go wrong any more.
    public func run(onStart: () -> Void = {}) throws(MachineError) -> MachineOutcome {
        let debugger = debugListener.map { MachineDebugger($0.listener, memory: memory, waits: $0.waits) }
        defer {
            debugger?.close()
            close()
        }
        var notice = engineReason
        var isFirst = true
        var cause: ResetCause?
        var engine = engine
        while true {
            var board = try makeBoard(engine: engine, after: cause)
            // Only now, so that a mistake is the one line that the user gets.
            if let line = notice.take() { log.write(.warning, line) }
            if isFirst { onStart() }
            isFirst = false
            if let line = debugger?.notice { log.write(.warning, line) }
            let event = try run(&board, &engine, debugger)
            if log.level >= .debug || configuration.printsStatistics { printStatistics(of: board) }
            switch event {
            case .outcome(let outcome): return outcome
            case .reset(let event):
                if configuration.resetAction == .end { return .reset }
                log.write(.info, "the guest reset the machine (\(event)); starting over")
                cause = event
            }
        }
    }

    private enum End {
        case outcome(MachineOutcome)
        case reset(ResetCause)
    }

    /// Runs one board's vCPUs until something decides how to go on, and waits for their threads' end.
    private func run(
        _ board: inout Board, _ engine: inout ComponentChoice, _ debugger: MachineDebugger?
    ) throws(MachineError) -> End {
        var threads = VCPUThreads()
        debugger?.use(board.engine.vcpus)
        defer {
            _ = stop(board, &threads)
            board.detach()
            // What the old board still said means nothing to the next one.
            inbox.discard {
                switch $0 {
                case .machine, .vcpu: true;
                default: false
                }
            }
        }
        try start(board, &threads, debugger)
        return try waitForEnd(of: &board, &engine, &threads, debugger)
    }

    /// Starts the threads of all vCPUs, or those that the debugger lets run.
    private func start(
        _ board: Board, _ threads: inout VCPUThreads, _ debugger: MachineDebugger?
    ) throws(MachineError) {
        guard threads.threads.isEmpty else { return }
        threads.isStopping = SharedFlag()
        for vcpu in board.engine.vcpus where debugger?.lets(vcpu.index) ?? true {
            do throws(SystemError) {
                threads.threads.append(
                    try HostThread(
                        name: "davit-vcpu\(vcpu.index)", processor: affinity.isEmpty ? nil : affinity[vcpu.index]
                    ) { [inbox, isStopping = threads.isStopping] in
                        var exit = vcpu.run()
                        // A stop that came when the vCPU had already stopped for the debugger is still to be taken.
                        while exit == .stopped && !isStopping.isSet { exit = vcpu.run() }
                        switch exit {
                        case .stopped: break
                        case .debug(let stop): inbox.put(.debugStop(vcpu: vcpu.index, stop))
                        default: inbox.put(.vcpu(exit))
                        }
                    })
            } catch {
                throw MachineError(
                    .host, "no thread for vCPU \(vcpu.index): \(error); lower --cpus or raise the limit on processes")
            }
        }
        isHeld.set(false)
        ProgramPages.release()
    }

    /// Waits for all vCPUs' threads; gives what the debugger is not to hear of yet: vCPUs that have stopped for it besides.
    private func stop(_ board: Board, _ threads: inout VCPUThreads) -> [(vcpu: Int, reason: DebugStop)] {
        guard !threads.threads.isEmpty else { return [] }
        isHeld.set(true)
        threads.isStopping.set(true)
        for vcpu in board.engine.vcpus { vcpu.requestStop() }
        for thread in threads.threads { thread.join() }
        threads.threads = []
        var late: [(vcpu: Int, reason: DebugStop)] = []
        inbox.discard {
            guard case .debugStop(let vcpu, let reason) = $0 else { return false }
            late.append((vcpu, reason))
            return true
        }
        return late
    }

    private func waitForEnd(
        of board: inout Board, _ engine: inout ComponentChoice, _ threads: inout VCPUThreads,
        _ debugger: MachineDebugger?
    ) throws(MachineError) -> End {
        var hasPanicked = false
        var isPaused = false
        while true {
            guard let event = inbox.take(milliseconds: hasPanicked ? Self.panicPatience : nil) else {
                return .outcome(.guestPanicked)
            }
            switch event {
            case .machine(.powerOff): return .outcome(.poweredOff)
            case .machine(.reset(.tripleFault(let report))), .vcpu(.tripleFault(let report)):
                return .outcome(.tripleFault(report: report))
            case .machine(.reset(let cause)): return .reset(cause)
            case .machine(.guestPanic):
                log.write(.error, "the guest reports a panic")
                hasPanicked = true
            case .machine(.debugExit(let code)): return .outcome(.debugExit(code: code))
            case .vcpu(.haltedForever(let report)): return .outcome(.haltedForever(report: report))
            case .vcpu(.failed(let report)): return .outcome(.engineFailed(report: report))
            case .vcpu(.stopped), .vcpu(.debug): break
            case .debugStop(let vcpu, let reason):
                let late = stop(board, &threads)
                debugger?.didStop(vcpu: vcpu, reason, late: late)
            case .debugger(let event):
                debugger?.take(event) { stop(board, &threads) }
                if debugger?.isKilled ?? false { return .outcome(.stopped(.requested)) }
                if !isPaused { try start(board, &threads, debugger) }
            case .sendBreak: board.sendBreak()
            case .powerButton: board.pressPowerButton()
            case .pause(let pauses):
                isPaused = pauses
                if pauses {
                    let late = stop(board, &threads)
                    debugger?.keep(late)
                } else {
                    try start(board, &threads, debugger)
                }
            case .change(let choice, let done):
                let late = stop(board, &threads)
                debugger?.keep(late)
                var failure: MachineError?
                do throws(MachineError) {
                    try board.change(to: choice)
                    engine = choice
                    log.write(.info, "the machine goes on with --engine \(choice)")
                } catch {
                    failure = error
                }
                debugger?.use(board.engine.vcpus)
                if !isPaused { try start(board, &threads, debugger) }
                done(failure)
            case .stop(let reason):
                for channel in allChannels { channel.hurry() }
                return .outcome(.stopped(reason))
            }
        }
    }

    private func printStatistics(of board: Board) {
        for (name, value) in board.engine.statistics() { log.write(.error, "\(name): \(value)") }
    }

    private func close() {
        for disk in disks { disk.device.close() }
        for network in networks { network.close() }
        for share in shares { share.server.close() }
        for channel in allChannels { channel.close() }
        loop.stop()
        Terminal.restore()
    }
}

/// The threads of vCPUs that run, empty if they stand.
private struct VCPUThreads {
    var threads: [HostThread] = []
    var isStopping = SharedFlag()
}
