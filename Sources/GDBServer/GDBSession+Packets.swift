import GuestMemory
import MachineModel
import X86

// The packets, by their names in the GDB manual, E.2 to E.4.
extension GDBSession {
    /// Nil: the answer comes later, when a vCPU stops.
    mutating func answer(_ data: [UInt8]) -> GDBAnswer? {
        guard let name = data.first else { return .unknown }
        let rest = data.dropFirst()
        switch UnicodeScalar(name) {
        case "?": return GDBAnswer(lastStop)
        case "g": return readRegisters()
        case "G": return writeRegisters(rest)
        case "p": return readRegister(rest)
        case "P": return writeRegister(rest)
        case "m": return readMemory(rest)
        case "M": return writeMemory(rest)
        case "Z": return setPoint(rest, isSet: true)
        case "z": return setPoint(rest, isSet: false)
        case "H": return selectThread(rest)
        case "T": return thread(rest) == nil ? .error(.input) : .ok
        case "c", "s": return resume(rest, steps: name == UInt8(ascii: "s"))
        case "C", "S":
            // Signals are nothing to a machine.
            let parts = rest.split(separator: UInt8(ascii: ";"), maxSplits: 1, omittingEmptySubsequences: false)
            return resume(parts.count > 1 ? parts[1] : [], steps: name == UInt8(ascii: "S"))
        case "D":
            end()
            return .ok
        case "k":
            isKilled = true
            return nil
        case "q", "Q", "v": return answerNamed(data)
        default: return .unknown
        }
    }

    private mutating func answerNamed(_ data: [UInt8]) -> GDBAnswer? {
        // Its arguments are hexadecimal or names: what is not UTF-8 is no packet.
        guard let text = String(validating: data, as: UTF8.self) else { return .unknown }
        func argument(of name: String) -> Substring? { text.hasPrefix(name) ? text.dropFirst(name.utf8.count) : nil }
        if argument(of: "qSupported") != nil {
            let features = Set(text.split(whereSeparator: { $0 == ":" || $0 == ";" }))
            tellsSoftwareBreakpoints = features.contains("swbreak+")
            tellsHardwareBreakpoints = features.contains("hwbreak+")
            return GDBAnswer(
                "PacketSize=\(String(GDBPacketReader.maximumPacket, radix: 16));qXfer:features:read+;"
                    + "vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+")
        }
        if let range = argument(of: "qXfer:features:read:target.xml:") { return readDescription(range) }
        if let actions = argument(of: "vCont;") { return resume(actions: actions) }
        if let id = argument(of: "qThreadExtraInfo,") { return describeThread(Array(id.utf8)) }
        if let command = argument(of: "qRcmd,") { return obey(Array(command.utf8)) }
        if let mode = argument(of: "Qqemu.PhyMemMode:") {
            guard mode == "0" || mode == "1" else { return .error(.input) }
            usesPhysicalAddresses = mode == "1"
            return .ok
        }
        if argument(of: "vKill;") != nil {
            isKilled = true
            return .ok
        }
        return switch text {
        case "vCont?": GDBAnswer("vCont;c;C;s;S")
        case "QStartNoAckMode": .ok
        case "qC": GDBAnswer("QC\(String(current + 1, radix: 16))")
        case "qAttached": GDBAnswer("1")
        case "qfThreadInfo": GDBAnswer("m" + vcpus.indices.map { String($0 + 1, radix: 16) }.joined(separator: ","))
        case "qsThreadInfo": GDBAnswer("l")
        case "qqemu.PhyMemMode": GDBAnswer(usesPhysicalAddresses ? "1" : "0")
        default: .unknown
        }
    }

    // MARK: - Registers

    private func readRegisters() -> GDBAnswer {
        let state = vcpus[current].saveState()
        return GDBAnswer(Hex.bytes(GDBRegister.all.flatMap { $0.get(state) }))
    }

    private func writeRegisters(_ text: ArraySlice<UInt8>) -> GDBAnswer {
        guard let bytes = Hex.decode(text), bytes.count == GDBRegister.all.reduce(0, { $0 + $1.bytes }) else {
            return .error(.input)
        }
        var state = vcpus[current].saveState()
        var place = 0
        for register in GDBRegister.all {
            guard register.set(&state, Array(bytes[place..<place + register.bytes])) else { return .error(.input) }
            place += register.bytes
        }
        return restore(state)
    }

    private func readRegister(_ text: ArraySlice<UInt8>) -> GDBAnswer {
        guard let register = register(text) else { return .error(.input) }
        return GDBAnswer(Hex.bytes(register.get(vcpus[current].saveState())))
    }

    private func writeRegister(_ text: ArraySlice<UInt8>) -> GDBAnswer {
        let parts = text.split(separator: UInt8(ascii: "="), omittingEmptySubsequences: false)
        guard parts.count == 2, let register = register(parts[0]), let bytes = Hex.decode(parts[1]),
            bytes.count == register.bytes
        else { return .error(.input) }
        var state = vcpus[current].saveState()
        guard register.set(&state, bytes) else { return .error(.input) }
        return restore(state)
    }

    private func register(_ text: ArraySlice<UInt8>) -> GDBRegister? {
        guard let number = Hex.number(text), number < GDBRegister.all.count else { return nil }
        return GDBRegister.all[Int(number)]
    }

    private func restore(_ state: VCPUState) -> GDBAnswer {
        do throws(InvalidVCPUState) {
            try vcpus[current].restore(state)
            return .ok
        } catch {
            return .error(.input)
        }
    }

    private func readDescription(_ text: Substring) -> GDBAnswer {
        guard let (offset, count) = range(Array(text.utf8)[...]) else { return .error(.input) }
        let whole = TargetDescription.xml
        guard offset < whole.count else { return GDBAnswer("l") }
        // A byte may become two, and all of them and the letter are to fit.
        let end = min(whole.count, Int(offset) + min(count, GDBPacketReader.maximumPacket / 2 - 1))
        return GDBAnswer([UInt8(ascii: end == whole.count ? "l" : "m")] + whole[Int(offset)..<end])
    }

    // MARK: - Memory

    private var addressSpace: GuestAddressSpace {
        GuestAddressSpace(memory: memory, state: usesPhysicalAddresses ? nil : vcpus[current].saveState())
    }

    /// `address,count`, the count no more than a packet may be long.
    private func range(_ text: ArraySlice<UInt8>) -> (UInt64, Int)? {
        let parts = text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
        guard parts.count == 2, let address = Hex.number(parts[0]), let count = Hex.number(parts[1]) else { return nil }
        return (address, Int(min(count, UInt64(GDBPacketReader.maximumPacket))))
    }

    private func readMemory(_ text: ArraySlice<UInt8>) -> GDBAnswer {
        guard let (address, count) = range(text) else { return .error(.input) }
        let bytes = addressSpace.read(address, count: min(count, GDBPacketReader.maximumPacket / 2))
        return bytes.isEmpty && count > 0 ? .error(.memory) : GDBAnswer(Hex.bytes(bytes))
    }

    private func writeMemory(_ text: ArraySlice<UInt8>) -> GDBAnswer {
        let parts = text.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard parts.count == 2, let (address, count) = range(parts[0]), let bytes = Hex.decode(parts[1]),
            bytes.count == count
        else { return .error(.input) }
        return addressSpace.write(bytes, at: address) ? .ok : .error(.memory)
    }

    // MARK: - Breakpoints

    private mutating func setPoint(_ text: ArraySlice<UInt8>, isSet: Bool) -> GDBAnswer {
        // Conditions, behind a semicolon, are not offered.
        let parts = text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
        guard parts.count == 3, let kind = parts[0].first, parts[0].count == 1, let address = Hex.number(parts[1]),
            let size = Hex.number(parts[2])
        else { return .error(.input) }
        let before = self
        switch UnicodeScalar(kind) {
        case "0": Self.put(address, isSet, in: &softwareBreakpoints)
        case "1": Self.put(address, isSet, in: &hardwareBreakpoints)
        case "2", "3", "4":
            guard (1...4096).contains(size) else { return .error(.input) }
            let kinds: [Watchpoint.Kind] = [.write, .read, .access]
            let watchpoint = Watchpoint(kind: kinds[Int(kind - UInt8(ascii: "2"))], address: address, size: size)
            watchpoints.removeAll { $0 == watchpoint }
            if isSet { watchpoints.append(watchpoint) }
        default: return .unknown
        }
        guard softwareBreakpoints.count + hardwareBreakpoints.count <= Self.maximumBreakpoints,
            watchpoints.count <= Self.maximumWatchpoints, apply(stepping: [])
        else {
            self = before
            apply(stepping: [])
            return .error(.noSpace)
        }
        return .ok
    }

    private static func put(_ address: UInt64, _ isSet: Bool, in set: inout Set<UInt64>) {
        if isSet { set.insert(address) } else { set.remove(address) }
    }

    // MARK: - Threads

    /// The index of the vCPU that a thread's number stands for.
    private func thread(_ text: some Collection<UInt8>) -> Int? {
        guard let number = Hex.number(text), number >= 1, number <= vcpus.count else { return nil }
        return Int(number) - 1
    }

    /// -1, all threads, and 0, any of them.
    private static func isAny(_ text: some Collection<UInt8>) -> Bool {
        text.elementsEqual("-1".utf8) || text.elementsEqual("0".utf8)
    }

    private mutating func selectThread(_ text: ArraySlice<UInt8>) -> GDBAnswer {
        guard let kind = text.first, kind == UInt8(ascii: "g") || kind == UInt8(ascii: "c") else {
            return .error(.input)
        }
        if Self.isAny(text.dropFirst()) { return .ok }
        guard let index = thread(text.dropFirst()) else { return .error(.input) }
        current = index
        return .ok
    }

    private func describeThread(_ id: [UInt8]) -> GDBAnswer {
        guard let index = thread(id) else { return .error(.input) }
        let activity =
            switch vcpus[index].saveState().activity {
            case .running: "running"
            case .halted: "halted"
            case .waitingForSIPI: "waiting for SIPI"
            }
        return GDBAnswer(Hex.bytes(Array("vCPU \(index) (\(activity))".utf8)))
    }

    // MARK: - Going on

    /// `c` and `s`, perhaps with an address to go on at.
    private mutating func resume(_ address: ArraySlice<UInt8>, steps: Bool) -> GDBAnswer? {
        if !address.isEmpty {
            guard let rip = Hex.number(address) else { return .error(.input) }
            var state = vcpus[current].saveState()
            state.rip = rip
            guard (try? vcpus[current].restore(state)) != nil else { return .error(.input) }
        }
        resume(steps ? [current] : Set(vcpus.indices), stepping: steps ? [current] : [])
        return nil
    }

    /// `vCont`: for each thread the first action that names it.
    private mutating func resume(actions: Substring) -> GDBAnswer? {
        var running: Set<Int> = []
        var stepping: Set<Int> = []
        for action in actions.split(separator: ";", omittingEmptySubsequences: false) {
            let parts = action.split(separator: ":", omittingEmptySubsequences: false)
            guard (1...2).contains(parts.count), let kind = parts[0].first, "cCsS".contains(kind) else {
                return .error(.input)
            }
            var named = Set(vcpus.indices)
            if parts.count == 2, !Self.isAny(parts[1].utf8) {
                guard let index = thread(parts[1].utf8) else { return .error(.input) }
                named = [index]
            }
            named.subtract(running)
            running.formUnion(named)
            if kind == "s" || kind == "S" { stepping.formUnion(named) }
        }
        guard !running.isEmpty else { return .error(.input) }
        resume(running, stepping: stepping)
        return nil
    }

    private mutating func resume(_ running: Set<Int>, stepping: Set<Int>) {
        apply(stepping: stepping)
        resumed = running
        isRunning = true
    }

    // MARK: - monitor

    /// `monitor COMMAND`.
    private mutating func obey(_ command: [UInt8]) -> GDBAnswer {
        guard let bytes = Hex.decode(command) else { return .error(.input) }
        switch String(validating: bytes, as: UTF8.self) {
        case "physical on": usesPhysicalAddresses = true
        case "physical off": usesPhysicalAddresses = false
        default:
            return GDBAnswer(
                Hex.bytes(Array("physical on|off: addresses are the guest's physical ones, or not\n".utf8)))
        }
        return .ok
    }
}
