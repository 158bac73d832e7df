import GuestMemory
import HostLinux
import MachineModel

extension Machine {
    /// How long a guest that has reported a panic may take to reset the machine by itself (Linux: `panic=`), in milliseconds.
    private static let panicPatience: Int32 = 3000

    /// Runs the guest on threads of its own until something ends it; resets begin anew. To be called once. `onStart` is called when
    /// the kernel has been loaded, and nothing but the guest itself can go wrong any more.
    public func run(onStart: () -> Void = {}) throws(MachineError) -> MachineOutcome {
        defer { close() }
        var notice = engineReason
        var isFirst = true
        var engine = engine
        while true {
            var board = try makeBoard(engine: engine)
            // Only now, so that a mistake is the one line that the user gets.
            if let line = notice.take() { log.write(.warning, line) }
            if isFirst { onStart() }
            isFirst = false
            let event = try run(&board, &engine)
            if log.level >= .debug || configuration.printsStatistics { printStatistics(of: board) }
            switch event {
            case .outcome(let outcome): return outcome
            case .reset(let cause):
                if configuration.resetAction == .end { return .reset }
                log.write(.info, "the guest reset the machine (\(cause)); starting over")
            }
        }
    }

    private enum End {
        case outcome(MachineOutcome)
        case reset(ResetCause)
    }

    /// Runs one board's vCPUs until something decides how to go on, and waits for their threads' end.
    private func run(_ board: inout Board, _ engine: inout ComponentChoice) throws(MachineError) -> End {
        var threads: [HostThread] = []
        defer {
            stop(board, &threads)
            board.detach()
            // What the old board still said means nothing to the next one.
            inbox.discard {
                switch $0 {
                case .machine, .vcpu: true;
                default: false
                }
            }
        }
        try start(board, &threads)
        return try waitForEnd(of: &board, &engine, &threads)
    }

    private func start(_ board: Board, _ threads: inout [HostThread]) throws(MachineError) {
        for vcpu in board.engine.vcpus {
            do throws(SystemError) {
                threads.append(
                    try HostThread(
                        name: "davit-vcpu\(vcpu.index)", processor: affinity.isEmpty ? nil : affinity[vcpu.index]
                    ) { [inbox] in
                        let exit = vcpu.run()
                        if exit != .stopped { inbox.put(.vcpu(exit)) }
                    })
            } catch {
                throw MachineError(
                    .host, "no thread for vCPU \(vcpu.index): \(error); lower --cpus or raise the limit on processes")
            }
        }
        ProgramPages.release()
    }

    private func stop(_ board: Board, _ threads: inout [HostThread]) {
        guard !threads.isEmpty else { return }
        for vcpu in board.engine.vcpus { vcpu.requestStop() }
        for thread in threads { thread.join() }
        threads = []
    }

    private func waitForEnd(
        of board: inout Board, _ engine: inout ComponentChoice, _ threads: inout [HostThread]
    ) throws(MachineError) -> End {
        var hasPanicked = false
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
            case .vcpu(.stopped): break
            case .sendBreak: board.sendBreak()
            case .powerButton: board.pressPowerButton()
            case .pause(let isPaused):
                if isPaused {
                    stop(board, &threads)
                } else if threads.isEmpty {
                    try start(board, &threads)
                }
            case .change(let choice, let done):
                let isRunning = !threads.isEmpty
                stop(board, &threads)
                var failure: MachineError?
                do throws(MachineError) {
                    try board.change(to: choice)
                    engine = choice
                    log.write(.info, "the machine goes on with --engine \(choice)")
                } catch {
                    failure = error
                }
                if isRunning { try start(board, &threads) }
                done(failure)
            case .stop(let reason):
                for channel in serialChannels { channel?.hurry() }
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
        for channel in serialChannels { channel?.close() }
        loop.stop()
        Terminal.restore()
    }
}
