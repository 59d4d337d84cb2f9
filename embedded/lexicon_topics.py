"""Fourteen topics: places, things, roles, what people do there (past tense) and what is known about it."""

from __future__ import annotations

from embedded.phrases import phrases


def topic(place: str, thing: str, role: str, vp: str, fact: str) -> dict[str, tuple[str, ...]]:
    """One topic; ``obj`` is every thing with its article."""
    things = phrases(thing)
    return {
        "place": phrases(place),
        "thing": things,
        "obj": tuple(f"the {name}" for name in things),
        "role": phrases(role),
        "vp": phrases(vp),
        "fact": phrases(fact),
    }


TOPICS: dict[str, dict[str, tuple[str, ...]]] = {
    "sea": topic(
        "the harbor | the beach | the old pier | the lighthouse | the bay",
        "boat | net | anchor | shell | sail | oar | rope | bucket | canoe | compass | lamp | hook",
        "sailor | fisherman | captain | diver | boatman",
        """mended the nets | rowed out past the rocks | cleaned the deck | counted the fish | watched the tide |
        tied up the boat | looked for shells | painted the hull | sorted the crabs | steered around the island |
        checked the weather | hauled in the lines | unloaded two barrels | swam to the buoy""",
        """the tide comes in twice a day | whales swim far from the shore | a good sail can cross an ocean |
        salt dries white on the rocks | gulls follow every boat | crabs walk sideways | a knot must hold when wet |
        most of the ocean is deep and dark""",
    ),
    "kitchen": topic(
        "the kitchen | the bakery | the dining room | the inn | the pantry",
        "pot | cake | spoon | bowl | loaf | knife | pie | oven | kettle | jar | tray | apron",
        "cook | baker | waiter | butcher | innkeeper",
        """stirred the soup | kneaded the dough | chopped the onions | set the table | washed the dishes |
        baked two loaves | tasted the sauce | peeled the potatoes | weighed the flour | boiled six eggs |
        wiped the counter | filled the salt jar | sliced the cheese | wrote down the recipe""",
        """bread needs yeast and time | soup tastes better the next day | butter melts in a warm pan |
        a sharp knife is safer than a dull one | sugar turns brown in the heat | rice doubles in the pot |
        onions grow sweet when they cook slowly | an oven takes ten minutes to heat""",
    ),
    "forest": topic(
        "the forest | the clearing | the cabin | the old bridge | the valley",
        "axe | lantern | basket | map | log | tent | whistle | trap | backpack | stick | saw | torch",
        "hunter | ranger | woodcutter | hiker | guide",
        """gathered wood | followed the trail | picked mushrooms | climbed a tall pine | crossed the stream |
        built a fire | marked the trees | measured an old oak | filled the water bottles | pitched the tent |
        sharpened the axe | counted the rings of a stump | looked for berries | mapped the path""",
        """an oak can live for hundreds of years | moss grows where it is damp | owls hunt at night |
        a fox has many doors to its den | ferns love the shade | deer drink at the stream in the evening |
        a dead tree feeds many beetles | pines keep their needles in winter""",
    ),
    "school": topic(
        "the school | the library | the classroom | the playground | the reading room",
        "book | pencil | desk | notebook | chart | ruler | bag | poem | dictionary | globe | blackboard | essay",
        "teacher | student | pupil | librarian | professor",
        """read a chapter | wrote on the board | solved the problem | learned a poem | drew a map |
        studied for the exam | counted to a hundred | copied the sentences | returned two books |
        sharpened the pencils | checked the spelling | looked up a word | handed in the homework |
        sorted the library cards""",
        """a library keeps old stories alive | every word has a history | numbers never end |
        practice makes a hard page easy | a good question is half the answer | a map is never the land itself |
        children learn faster when they rest | a dictionary settles many arguments""",
    ),
    "space": topic(
        "the space station | the landing field | the moon base | the control room | the observatory",
        "rocket | helmet | telescope | radio | engine | suit | rover | antenna | satellite | capsule | screen | tank",
        "pilot | astronaut | engineer | scientist | technician",
        """checked the engine | tested the radio | floated past the window | mapped the stars | wrote the log |
        fixed the antenna | fed the plants in the lab | measured the fuel | cleaned the air filter |
        turned the telescope | recorded the signal | packed the instruments | repaired the left panel |
        read the numbers aloud""",
        """light from a star takes years to reach us | the moon has no air | mars looks red because of rust |
        a rocket burns most of its fuel at the start | planets go around the sun | a comet has a tail of dust |
        astronauts sleep tied to the wall | a day on the moon lasts two weeks""",
    ),
    "music": topic(
        "the concert hall | the studio | the stage | the music shop | the rehearsal room",
        "violin | drum | flute | piano | guitar | trumpet | song | record | cello | harp | microphone | score",
        "singer | drummer | violinist | composer | conductor",
        """tuned the strings | played a slow song | practiced the scales | wrote a melody | tapped the beat |
        sang the chorus | carried the drums | turned the pages | repeated the second part | cleaned the flute |
        recorded a new track | copied the notes | tried a different key | wrapped the cables""",
        """a drum keeps the time | a song can cross any border | strings sound higher when they are tight |
        a choir breathes together | silence is part of the music | a piano has eighty-eight keys |
        an old violin needs a dry room | the low notes travel farthest""",
    ),
    "farm": topic(
        "the barn | the field | the farm | the henhouse | the stable",
        "cow | plow | wagon | goat | fence | tractor | sack | pig | ladder | pitchfork | trough | cart",
        "farmer | shepherd | milkmaid | rancher | blacksmith",
        """milked the cows | fed the hens | planted the corn | fixed the fence | cut the hay |
        led the goats up the hill | carried water from the well | brushed the horses | collected the eggs |
        cleaned the stalls | loaded the wagon | sheared four sheep | oiled the tractor | stacked the bales""",
        """hens lay more eggs in summer | rain decides the harvest | a good dog can lead a hundred sheep |
        corn grows fast in warm soil | goats eat almost anything | hay must be dry before it is stored |
        a cow drinks a full bath each day | fields need a year of rest""",
    ),
    "city": topic(
        "the market | the square | the station | the tall tower | the museum",
        "bus | ticket | bicycle | taxi | umbrella | newspaper | clock | coat | suitcase | stamp | wallet | sign",
        "driver | clerk | tailor | shopkeeper | postman",
        """waited for the bus | bought a newspaper | crossed the street | swept the shop | rode the bicycle |
        counted the coins | sold three tickets | asked for the way | mailed a package | read the timetable |
        locked the shop | measured the cloth | stamped the forms | carried the bags upstairs""",
        """trains run under the streets | a city never sleeps | the market opens before dawn |
        pigeons know every roof | rush hour comes twice a day | a bridge needs new paint every few years |
        the oldest street is also the narrowest | buses are full on Monday""",
    ),
    "garden": topic(
        "the garden | the greenhouse | the orchard | the park | the pond",
        "rose | shovel | apple | bench | fountain | seed | hedge | tulip | rake | hose | pear | fern",
        "gardener | florist | beekeeper | painter | botanist",
        """watered the roses | pulled the weeds | planted a seed | trimmed the hedge | picked the apples |
        raked the leaves | dug a small hole | cleaned the pond | tied up the tomatoes | turned the soil |
        counted the buds | filled the bird bath | labeled the pots | sowed a row of beans""",
        """bees visit thousands of flowers | a seed waits for the right season | roses need sun and water |
        worms keep the soil soft | tulips bloom in spring | a hedge is cut twice a year |
        old leaves make good soil | an apple tree bears fruit after some years""",
    ),
    "sport": topic(
        "the stadium | the gym | the track | the ice rink | the swimming pool",
        "ball | medal | racket | jersey | skate | trophy | towel | stopwatch | bat | goal | glove | kayak",
        "player | runner | coach | skater | referee",
        """ran three laps | passed the ball | stretched before the game | practiced the jump | scored a point |
        cleaned the skates | lifted the weights | drank some water | tied the laces | wrote down the times |
        trained with the team | swam forty lanes | studied the rules | carried the nets""",
        """a team is stronger than its best player | a race is won in the last mile | rest is part of training |
        a coach sees the whole field | every game has two halves | a warm muscle is a safe muscle |
        the rules change every few years | swimmers train before breakfast""",
    ),
    "castle": topic(
        "the castle | the throne room | the village | the dungeon | the watchtower",
        "crown | sword | shield | horse | ring | scroll | cup | key | banner | chest | candle | cloak",
        "king | knight | princess | wizard | guard",
        """polished the sword | rode across the bridge | read the old scroll | guarded the gate | sealed the letter |
        bowed to the queen | lit the torches | saddled the horse | counted the gold | opened the chest |
        carried the banner | swept the hall | copied the map of the land | wound the great clock""",
        """a castle has thick walls | a knight cares for his horse first | the king keeps the key to the vault |
        old magic sleeps in old books | every crown is heavy | a guard changes at midnight |
        the well inside the walls never runs dry | a shield bears the sign of the house""",
    ),
    "hospital": topic(
        "the hospital | the clinic | the waiting room | the pharmacy | the ward",
        "bandage | bed | report | bottle | wheelchair | mask | pill | thermometer | syringe | pillow | folder | tablet",
        "nurse | doctor | patient | pharmacist | surgeon",
        """checked the charts | changed the bandage | took the night shift | wrote a note | washed both hands |
        pushed the wheelchair | measured the pulse | filled the forms | called the next patient |
        sorted the pills | made the beds | read the results | answered the phone | prepared the room""",
        """a fever helps the body fight | sleep heals many things | clean hands save lives |
        the heart beats about a hundred thousand times a day | bones grow back stronger |
        a scar fades with the years | children need more sleep | most colds pass in a week""",
    ),
    "office": topic(
        "the office | the meeting room | the bank | the factory | the archive",
        "computer | printer | contract | file | calendar | keyboard | lamp | invoice | letter | stapler | chair | plan",
        "secretary | manager | lawyer | accountant | programmer",
        """answered some mails | printed the report | filed the papers | signed the contract | called a client |
        updated the list | booked a room | checked the numbers | wrote a memo | ordered new paper |
        sorted the invoices | planned the week | cleaned the desk | tested the new program""",
        """a short meeting is a good meeting | paper lasts longer than a disk | every contract has two sides |
        a tidy desk saves time | numbers must be checked twice | most mails can wait until noon |
        a factory runs in three shifts | an archive must be cool and dry""",
    ),
    "mountain": topic(
        "the mountain hut | the summit | the glacier | the pass | the cable car",
        "boot | sled | ski | blanket | flask | hammer | stove | crampon | sleeping bag | flag | shovel | goggles",
        "climber | skier | mountaineer | porter | innkeeper",
        """climbed to the ridge | packed the rope | melted some snow | read the map | waxed the skis |
        crossed the glacier | marked the route | carried the supplies | checked the knots | chopped wood for the hut |
        measured the snow | fed the sled dogs | patched the tent | wrote in the summit book""",
        """snow is heavier when it is wet | the air is thin at the summit | a glacier moves a little each day |
        storms come up fast in the afternoon | water boils sooner on a mountain | goats know the safest path |
        the north side stays cold | a rope should be replaced after a fall""",
    ),
}
