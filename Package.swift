// swift-tools-version: 6.2
import PackageDescription

/// Every target is Swift 6 language mode with warnings as errors.
let strict: [SwiftSetting] = [.treatAllWarnings(as: .error)]

/// A target on one floor of the house; `ARCHITECTURE.md` shows the floors, `make check` enforces them.
///
/// Files that are embedded are byte arrays in `PackageResources`.
func room(_ name: String, on below: [Target.Dependency] = [], embedding files: [String] = []) -> Target {
    .target(
        name: name, dependencies: below, resources: files.map { .embedInCode($0) }, swiftSettings: strict)
}

func tests(_ name: String, of targets: [Target.Dependency]) -> Target {
    .testTarget(name: name + "Tests", dependencies: targets + ["DavitTesting"], swiftSettings: strict)
}

let package = Package(
    name: "davit",
    products: [
        .executable(name: "davit", targets: ["davit"]),
        .executable(name: "davit-oracle", targets: ["davit-oracle"]),
        .executable(name: "davit-torture", targets: ["davit-torture"]),
        .library(name: "Davit", targets: ["Davit"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    ],
    targets: [
        // Floor 0: ground.
        .target(name: "CDavit"),
        .target(name: "CCompression", linkerSettings: [.linkedLibrary("z"), .linkedLibrary("zstd")]),
        // Linked statically: a library more would cost each start its loading.
        .target(name: "CYAML", linkerSettings: [.linkedLibrary(":libyaml.a")]),
        room("HostLinux", on: ["CDavit", .product(name: "SystemPackage", package: "swift-system")]),
        room("X86Assembler", on: ["CDavit", "HostLinux"]),

        // Floor 1: nouns.
        room("GuestMemory", on: ["CDavit", "HostLinux"]),
        room("X86"),
        room("MachineModel", on: ["GuestMemory", "X86"]),

        // Floor 2: parts.
        room("DeviceBus", on: ["GuestMemory", "MachineModel"]),
        room("Chipset", on: ["GuestMemory", "MachineModel"]),
        room("PCI", on: ["GuestMemory", "MachineModel"]),
        room("VirtioQueue", on: ["CDavit", "GuestMemory", "MachineModel"]),
        room("VirtioTransport", on: ["HostLinux", "GuestMemory", "MachineModel", "PCI", "VirtioQueue"]),
        room("VirtioDevices", on: ["HostLinux", "GuestMemory", "MachineModel", "VirtioQueue"]),
        room("NetBackends", on: ["CDavit", "HostLinux", "MachineModel"]),
        room("ConsoleBackends", on: ["MachineModel", "HostLinux"]),
        room("BlockFormats", on: ["CDavit", "CCompression", "HostLinux", "MachineModel"]),
        room("FileShares", on: ["CDavit", "HostLinux", "MachineModel"]),
        room("YAML", on: ["CYAML"]),
        room("MachineStore", on: ["CDavit", "HostLinux"]),
        room("DiskContents", on: ["HostLinux", "MachineModel"]),
        room("GuestAgent", on: ["HostLinux"], embedding: ["agent.pl"]),
        room("GDBServer", on: ["CDavit", "HostLinux", "GuestMemory", "X86", "MachineModel"]),
        room("ACPITables", on: ["MachineModel", "GuestMemory"]),
        room("BootLoaders", on: ["CCompression", "HostLinux", "MachineModel", "GuestMemory", "X86"]),
        room(
            "SoftEngine",
            on: ["CDavit", "HostLinux", "X86Assembler", "GuestMemory", "X86", "MachineModel"]),
        room("KVMEngine", on: ["CDavit", "HostLinux", "GuestMemory", "X86", "MachineModel"]),

        // Floor 3: the machine.
        room(
            "VMRuntime",
            on: [
                "HostLinux", "GuestMemory", "X86", "MachineModel", "DeviceBus", "Chipset", "PCI", "VirtioQueue",
                "VirtioTransport", "VirtioDevices", "BlockFormats", "FileShares", "DiskContents", "NetBackends",
                "ConsoleBackends",
                "ACPITables", "BootLoaders", "GDBServer", "SoftEngine", "KVMEngine",
            ]),

        // Floor 4: the product.
        room("Davit", on: ["HostLinux", "MachineModel", "VMRuntime"]),
        room(
            "DavitCommands",
            on: [
                "BlockFormats", "CDavit", "ConsoleBackends", "Davit", "GuestAgent", "HostLinux", "MachineModel",
                "MachineStore", "VMRuntime", "YAML",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            embedding: ["debian.sh", "guest-files.sh", "root.sh"]),

        // Floor 5: the program.
        .executableTarget(name: "davit", dependencies: ["DavitCommands"], swiftSettings: strict),

        // The host's CPU as the interpreter's oracle.
        .target(name: "COracle"),
        room("InstructionOracle", on: ["CDavit", "COracle", "HostLinux", "SoftEngine"]),
        .executableTarget(
            name: "davit-oracle",
            dependencies: ["InstructionOracle", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            swiftSettings: strict),

        // Kills a writer of disk images, and looks at what it leaves.
        .executableTarget(
            name: "davit-torture",
            dependencies: [
                "BlockFormats", "HostLinux", "MachineModel",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),

        // Tests.
        room("DavitTesting", on: ["GuestMemory", "MachineModel", "VirtioQueue"]),
        tests("YAML", of: ["YAML"]),
        tests("GuestMemory", of: ["GuestMemory"]),
        tests("SoftEngine", of: ["SoftEngine"]),
        tests("ACPITables", of: ["ACPITables"]),
        tests("HostLinux", of: ["HostLinux"]),
        tests("ConsoleBackends", of: ["ConsoleBackends", "HostLinux"]),
        tests("VMRuntime", of: ["VMRuntime"]),
        tests("DavitCommands", of: ["DavitCommands"]),
        tests("EndToEnd", of: ["HostLinux"]),
        tests(
            "EngineConformance",
            of: [
                "SoftEngine", "KVMEngine", "GDBServer", "HostLinux", "DeviceBus", "PCI", "VirtioTransport",
                "VirtioDevices",
                "VMRuntime",
            ]),
        tests("BootLoaders", of: ["BootLoaders"]),
        tests("X86Assembler", of: ["X86Assembler"]),
        tests("InstructionOracle", of: ["InstructionOracle"]),
        tests("DeviceBus", of: ["DeviceBus"]),
        tests("Chipset", of: ["Chipset"]),
        tests("PCI", of: ["PCI", "DeviceBus"]),
        tests("VirtioQueue", of: ["VirtioQueue"]),
        tests("VirtioTransport", of: ["VirtioTransport", "PCI", "DeviceBus"]),
        tests("VirtioDevices", of: ["VirtioDevices", "FileShares", "HostLinux"]),
        tests("FileShares", of: ["FileShares", "CDavit", "HostLinux", "MachineModel"]),
        tests("NetBackends", of: ["NetBackends"]),
        tests("BlockFormats", of: ["BlockFormats"]),
        tests("MachineStore", of: ["MachineStore", "HostLinux"]),
        tests("DiskContents", of: ["DiskContents"]),
        tests("GDBServer", of: ["GDBServer", "GuestMemory", "HostLinux", "MachineModel", "X86"]),
        tests("GuestAgent", of: ["GuestAgent", "HostLinux"]),
    ],
    swiftLanguageModes: [.v6]
)

// libFuzzer's programs have their own main and are instrumented, so they are no part of an ordinary build: see scripts/fuzz.
if Context.environment["DAVIT_FUZZING"] != nil {
    package.targets.append(
        .executableTarget(
            name: "davit-fuzz",
            dependencies: [
                "BlockFormats", "CDavit", "DavitTesting", "DeviceBus", "FileShares", "GDBServer", "GuestMemory",
                "HostLinux",
                "MachineModel",
                "PCI", "VirtioDevices", "VirtioQueue", "VirtioTransport",
            ],
            path: "Fuzzing", swiftSettings: strict + [.unsafeFlags(["-parse-as-library"])]))
}
