import Glibc

/// How long and how random tests with noise run: `DAVIT_NOISE_ROUNDS`, `DAVIT_NOISE_SEED`.
enum Noise {
    static var rounds: Int { variable("DAVIT_NOISE_ROUNDS").flatMap { Int($0) } ?? 300 }
    static var seed: UInt64 { variable("DAVIT_NOISE_SEED").flatMap { UInt64($0) } ?? 1 }

    private static func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
}
