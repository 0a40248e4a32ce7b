"""A WordNet of a few synsets, in the form of its files."""

# As in WordNet 3.0 up to carnivore and wheeled vehicle; what lies above these is shortened.
ENTITY, CARNIVORE, WHEELED = "n00001740", "n02075296", "n04576211"
DOG, CAT, CAR, BICYCLE, WOLF = "n02084071", "n02121620", "n02958343", "n02834778", "n02114100"
CANINE, FELINE, DOMESTIC, ANIMAL = "n02083346", "n02120997", "n01317541", "n00015388"
MOTOR, SELF_PROPELLED = "n03791235", "n04170037"
KINDS = {
    ENTITY: (), CARNIVORE: (ANIMAL,), WHEELED: (ENTITY,), ANIMAL: (ENTITY,), DOMESTIC: (ANIMAL,),
    CANINE: (CARNIVORE,), FELINE: (CARNIVORE,), DOG: (CANINE, DOMESTIC), CAT: (FELINE,), WOLF: (CANINE,),
    SELF_PROPELLED: (WHEELED,), MOTOR: (SELF_PROPELLED,), CAR: (MOTOR,), BICYCLE: (WHEELED,),
}  # fmt: skip


def write_wordnet(folder, kinds=KINDS, instances=()):
    """data.noun in WordNet's form: every synset with eleven words, a part that is no hypernym, and a gloss."""
    folder.mkdir(exist_ok=True)
    words = " ".join(f"word_{i} {i:x}" for i in range(11))  # counted in hexadecimal
    lines = ["  1 This software and database is being provided to you\n"]
    for synset, above in kinds.items():
        sign = "@i" if synset in instances else "@"
        pointers = [f"{sign} {up[1:]} n 0000" for up in above] + ["%p 00001740 n 0000", "+ 01835496 v 0101"]
        lines.append(f"{synset[1:]} 05 n 0b {words} {len(pointers):03d} {' '.join(pointers)} | @ 00000000\n")
    (folder / "data.noun").write_text("".join(lines))
    return folder
