import Glibc

/// What is fuzzed; the environment's FUZZ_TARGET names one.
enum FuzzTarget: String, CaseIterable {
    /// Rings of both kinds, wherever a driver puts them.
    case rings
    /// Requests to every virtio device, and its configuration.
    case requests
    /// Accesses to PCI's configuration space and to the registers of both transports.
    case registers
    /// Disk images of every format.
    case images
    /// GDB's packets.
    case packets

    func run(_ input: FuzzInput) {
        switch self {
        case .rings: fuzzRings(input)
        case .requests: fuzzRequests(input)
        case .registers: fuzzRegisters(input)
        case .images: fuzzImages(input)
        case .packets: fuzzPackets(input)
        }
    }
}

private let target: FuzzTarget = {
    let names = FuzzTarget.allCases.map(\.rawValue).joined(separator: ", ")
    guard let name = getenv("FUZZ_TARGET").map({ String(cString: $0) }), let target = FuzzTarget(rawValue: name) else {
        fatalError("set FUZZ_TARGET to one of: \(names)")
    }
    return target
}()

/// Called by libFuzzer for each input (LLVM, libFuzzer). A trap in here is a finding.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    target.run(FuzzInput(Array(UnsafeBufferPointer(start: bytes, count: count))))
    return 0
}
