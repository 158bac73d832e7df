/// Names for machines whose user gives none.
enum MadeUpName {
    private static let manners = [
        "able", "bold", "brisk", "calm", "clear", "deft", "fair", "firm", "glad", "keen", "kind", "lean", "neat",
        "plain",
        "quick", "quiet", "sound", "spry", "stout", "swift", "terse", "trim", "warm", "wise",
    ]
    private static let things = [
        "anchor", "ballast", "beam", "block", "boom", "bow", "buoy", "capstan", "cleat", "davit", "deck", "galley",
        "helm",
        "hull", "jib", "keel", "mast", "oar", "pulley", "rudder", "sail", "spar", "stern", "tiller", "winch",
    ]

    static func random() -> String {
        "\(manners.randomElement() ?? "")-\(things.randomElement() ?? "")-\(Int.random(in: 100...999))"
    }
}
