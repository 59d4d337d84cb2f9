"""Words and phrase templates of the five emotions.

Only ``adj``, ``noun`` and ``adv`` name an emotion; every other family shows it by behaviour, body, speech,
surroundings or events.  Slots such as ``{P}`` or ``{T.place}`` are explained in ``grammar.py``.  ``cause``
holds pairs (event, reference), so that later sentences can point back at what happened.
"""

from __future__ import annotations

from embedded.phrases import links, phrases

HAPPY = {
    "adj": phrases(
        "happy | glad | joyful | cheerful | delighted | merry | thrilled | overjoyed | pleased | excited"
    ),
    "noun": phrases("joy | happiness | delight | laughter | cheer | gladness"),
    "adv": phrases("happily | gladly | cheerfully | merrily | joyfully"),
    "vp": phrases("""
        laughed out loud | grinned from ear to ear | danced around the {T.thing} | hummed a little tune |
        clapped {P} hands | skipped along the path | jumped up and down | gave everyone a warm smile |
        sang at the top of {P} voice | threw {P} hat in the air | hugged {F} tightly | could not stop smiling |
        twirled around and around | whistled a bright song | waved at every stranger | giggled like a child |
        ran to share the good news | beamed with pride | bought sweets for everybody | kissed {F} on the cheek |
        told {F} the best part again | raised a glass to {F} | spun {F} around | cheered until {s} was hoarse |
        tied ribbons on {T.obj} | did a small dance on the stairs | gave {F} a high five | winked at {F} |
        blew kisses to the crowd | made everyone laugh | put flowers on the table | shared the cake with {F} |
        invited the whole street | whooped and ran in circles | drew a smiling face on {T.obj} |
        thanked everyone twice | decorated {T.place} with paper stars | lifted {F} off the ground"""),
    "body": phrases("""
        {P} heart was light | {P} eyes sparkled | {P} cheeks were pink | a wide smile spread over {P} face |
        {P} feet wanted to dance | a warm glow filled {P} chest | {P} face lit up | {P} steps were light |
        {P} whole body tingled | {P} smile would not go away | {P} voice rang like a bell |
        bubbles of laughter rose in {P} throat"""),
    "say": phrases("laughed | cheered | sang | said with a grin | giggled | exclaimed"),
    "line": phrases("""
        What a wonderful day! | This is the best thing ever! | Hooray! | I love this so much! | We did it! |
        Everything is going right today! | Let us celebrate together! | I could dance all night! |
        Look how lovely it is! | I knew it would turn out well! | Come and share the cake with me! |
        How lucky we are! | I have never had so much fun! | This calls for a party! | You are the best, {F}! |
        Can you believe our luck? | I want to tell everyone! | It worked, it really worked! |
        Look at {T.obj}, it is perfect! | Play that song again! | Today is my lucky day! | I won, I won! |
        Thank you, thank you! | Let us do it again tomorrow!"""),
    "world": phrases("""
        the sun was shining over {T.place} | birds were singing in the trees | {T.place} looked bright and lovely |
        the air smelled of flowers and fresh bread | everyone around was smiling | even {T.obj} seemed to sparkle |
        golden light danced on the windows | music drifted from somewhere near | the sky was a perfect blue |
        children were playing and laughing nearby | colorful flags waved over {T.place} |
        a rainbow stood above {T.place} | people danced in the street | bells rang for the holiday |
        butterflies played around {T.obj} | the crowd broke into applause | balloons floated over the roofs |
        somebody handed out free ice cream"""),
    "cause": links("""
        {F} gave {O} the {X} => the gift from {F} | {s} won the first prize => the prize |
        {s} found the {X} that had been lost for years => the {X} | {F} came home at last => having {F} back |
        {s} got good news in a letter => the letter | everyone threw a surprise party for {O} => the party |
        {s} passed the hardest test => the result | {F} said yes => the answer of {F} |
        the {X} turned out better than anyone had hoped => the {X} | {F} told a very funny joke => the joke |
        a kind stranger paid for everything => the kind stranger | {s} was chosen for the team => the team |
        {F} had a healthy baby => the baby | {P} plan worked at the first try => the plan |
        {s} was given the job {s} had dreamed of => the new job | {F} baked a cake for {O} => the cake |
        {P} team scored in the last minute => the goal | {s} could go on a long holiday => the holiday |
        {F} brought a puppy to {T.place} => the puppy | {P} song was played on the radio => the song"""),
    "mood": phrases("""
        with a spring in {P} step | humming all the while | with a big smile | with sparkling eyes |
        as if it were a game | with a song on {P} lips | laughing at every little thing | like a winner |
        with open arms | as if it were {P} birthday | dancing a little | whistling a bright song |
        with a wink at {F} | like a child on a birthday"""),
    "tint": phrases("bright | lovely | golden | shining | sweet | sunny | colorful | splendid"),
    "end": phrases("""
        it was the best day of {P} life | {s} went to bed with a smile | {s} laughed about it for years |
        from then on, every day felt like a holiday | {s} would remember that wonderful day forever |
        the day ended with songs and cake | {s} fell asleep dreaming of more good things |
        they danced until the sun came up | {s} could hardly wait for the next day |
        {F} and everyone else cheered for {O}"""),
    "pres": phrases("""
        I cannot stop smiling | my heart feels light | everything seems bright and lovely | I want to dance and sing |
        I feel like laughing all day | life is wonderful | I want to hug everyone | good things keep coming to me |
        I wake up with a song in my head | my feet want to dance | I could jump up and down | the world sparkles |
        I want to share my luck with {F} | I keep humming my favorite tune | I laugh at every little thing |
        I cannot wait for tomorrow | {T.place} has never looked so lovely | I wave at everyone I meet |
        my cheeks hurt from smiling | I want to celebrate with {F} | every song sounds sweet to me |
        I love every minute of it"""),
    "like": phrases("""
        a child on a birthday | a puppy with a new ball | the sun after rain | a bird in spring |
        a winner on the stage | a kid in a candy shop | a bell on a feast day"""),
}

SAD = {
    "adj": phrases(
        "sad | unhappy | lonely | gloomy | miserable | heartbroken | sorrowful | blue | downcast | hopeless"
    ),
    "noun": phrases("sadness | sorrow | grief | loneliness | misery | despair"),
    "adv": phrases("sadly | sorrowfully | mournfully | gloomily | tearfully"),
    "vp": phrases("""
        wept into {P} hands | stared at the floor | cried until no tears were left | sighed a long sigh |
        wiped a tear away | hid {P} face in a pillow | walked home alone | could not eat anything |
        sat by the window and cried | hung {P} head | let the tears fall | thought of everything that was gone |
        held an old picture and sobbed | said nothing for hours | lay in bed all day | mourned for a long time |
        wished things were different | whispered a last goodbye | put the old letters away | sat alone in the rain |
        lit a candle for {F} | turned {P} face to the wall | missed {F} more than ever | closed the curtains |
        kept the empty chair by the table | dropped {T.obj} and did not pick it up | wept without a sound |
        cried over {T.obj} | gave up on {T.obj} | left the soup untouched | buried {P} face in a scarf |
        stood at the grave for an hour | remembered the last words of {F} | could not bear to look at {T.obj} |
        stayed in the dark room | shook {P} head and wept"""),
    "body": phrases("""
        {P} heart was heavy | {P} eyes were full of tears | a lump grew in {P} throat | {P} shoulders sank |
        {P} voice broke | an ache sat in {P} chest | {P} lip trembled | {P} eyes were red and tired |
        tears ran down {P} cheeks | {P} steps were heavy | {P} face was pale and empty | {P} chest felt hollow"""),
    "say": phrases("sobbed | sighed | wept | said in a broken voice | cried | whispered through tears"),
    "line": phrases("""
        I miss you so much. | Nothing will ever be the same. | Why did it have to end? | I have lost everything. |
        I feel so alone. | There is no point anymore. | Please do not leave me. | It hurts so much. |
        I wish I could go back. | Nobody understands how I feel. | It is all over now. | I just want to cry. |
        I never said goodbye. | The house is so empty without you. | It was all for nothing. |
        I cannot bear it. | Everyone has forgotten me. | We will never meet again. | {F} is gone. |
        I should have been there. | Nobody is waiting for me. | What is left for me now? |
        I still keep the {X}. | My heart is broken."""),
    "world": phrases("""
        rain fell slowly over {T.place} | the sky was grey and low | {T.place} looked empty and cold |
        dead leaves lay on the ground | the house was silent without {F} | a lonely bell rang far away |
        the flowers had all withered | the lamp burned low in the corner | even {T.obj} looked forgotten |
        the chair by the fire was empty | a torn photograph lay in the mud | nobody came to {T.place} anymore |
        cold rain ran down the window | the last guests had left | an old sad song played next door |
        the garden had been left to die | the room still smelled of {F} | grey ash lay in the stove"""),
    "cause": links("""
        {F} moved far away => the day {F} left | {s} lost the {X} that meant the most => the lost {X} |
        {P} old dog died in the night => the old dog | {F} did not come back => {F} |
        {s} heard that {F} was very ill => the illness of {F} | nobody came to {P} birthday => the empty room |
        the {X} was broken beyond repair => the broken {X} | {F} said goodbye forever => that goodbye |
        {s} failed after so much work => all that lost work | {s} was left behind by everyone => the others |
        {P} grandmother passed away => {P} grandmother | the {X} from {P} mother was gone => the {X} |
        {s} had to sell the old house => the old house | {F} forgot {O} completely => the silence of {F} |
        {P} only friend married someone else => that wedding | the fire took all {P} pictures => the pictures |
        {s} was sent away from {T.place} => those lost days | the letter from {F} was a farewell => the letter |
        {P} little bird did not wake up => the little bird | the doctors could not help {F} => {F}"""),
    "mood": phrases("""
        with tears in {P} eyes | without a word | with heavy steps | with a long sigh | all alone |
        as if nothing mattered anymore | with {P} head hanging low | under the grey sky | in a broken voice |
        with an ache in {P} chest | weeping without a sound | for the last time | wishing {F} were there |
        like someone who has lost everything"""),
    "tint": phrases("empty | grey | broken | faded | silent | forgotten | withered | torn"),
    "end": phrases("""
        {s} never got over it | {s} cried {R} to sleep | after that, the days were long and empty |
        nothing could fill the hole that was left | the rain did not stop for a week |
        {s} still wept at the thought of it | {s} kept the {X} in a box and never opened it |
        nobody ever called {P} name again | {s} stood at the window and waited in vain | the house stayed dark"""),
    "pres": phrases("""
        I cannot stop crying | my heart feels heavy | everything seems grey and empty | I want to be alone |
        I have no tears left | nothing cheers me up | I miss the ones who left | the days are long and empty |
        I do not feel like eating | I keep thinking of {F}, who is gone | nobody calls me anymore |
        I look at old pictures and weep | I lie awake and cry | the house is silent without {F} |
        I have lost what I loved most | my chest feels hollow | nothing matters to me now |
        I still set a plate for {F} | I wish I could go back | tears run down my face at night |
        I stay in bed with the curtains closed | {T.place} reminds me of what is gone"""),
    "like": phrases("""
        a house with no one in it | a flower without water | a lost child | a long grey winter |
        a boat without a shore | the last leaf on the tree | a dog left in the rain"""),
}

ANGRY = {
    "adj": phrases(
        "angry | furious | mad | enraged | annoyed | outraged | irritated | bitter | livid | cross"
    ),
    "noun": phrases("anger | rage | fury | outrage | hatred | wrath"),
    "adv": phrases("angrily | furiously | fiercely | bitterly | wrathfully"),
    "vp": phrases("""
        slammed the door | shouted at everyone | clenched {P} fists | kicked {T.obj} across the floor |
        threw the plate at the wall | stamped {P} foot | glared at {F} | tore the paper into pieces |
        pounded on the table | yelled until {P} throat was sore | pushed {F} out of the way | cursed {F} loudly |
        swore to get revenge | ground {P} teeth | stormed out of {T.place} | smashed a cup on the floor |
        pointed a finger at {F} | refused to listen | called {F} a fool | ripped up the letter |
        banged {P} fist on {T.obj} | spat on the ground | grabbed {F} by the collar | hurled {T.obj} at the wall |
        argued with everyone at {T.place} | told {F} to get out | demanded {P} money back | broke a chair |
        screamed at the {T.role} | knocked over the table | blamed {F} for all of it | threatened the {T.role} |
        snatched {T.obj} away from {F} | kicked the door open | snarled at {F} | started a fight with {F}"""),
    "body": phrases("""
        {P} blood boiled | {P} face turned red | {P} jaw was tight | {P} fists shook | fire burned in {P} chest |
        {P} eyes flashed | {P} temples pounded | a vein stood out on {P} neck | {P} nostrils flared |
        {P} teeth were clenched | heat rushed to {P} head | {P} knuckles turned white"""),
    "say": phrases("shouted | yelled | snapped | growled | hissed | roared"),
    "line": phrases("""
        How dare you! | Get out of here! | This is your fault! | I have had enough of this! | I hate this! |
        Leave me alone, you fool! | You will pay for this! | That is not fair! | Do not touch my things! |
        You lied to me! | Shut up and go! | I will never forgive you! | Who do you think you are? |
        Give it back right now! | You ruined everything! | I am sick of your excuses! | You stupid liar! |
        Say that again and see what happens! | You had no right to touch the {X}! | Stop that noise at once! |
        I will make you regret this, {F}! | Nobody treats me like that! | You cheated me! | Enough is enough!"""),
    "world": phrases("""
        people shouted across {T.place} | a door banged again and again | the noise at {T.place} was unbearable |
        broken glass lay on the ground | a dog barked without end | horns blared and wheels screeched |
        the hot wind threw dust in every face | everyone was in the way | even {T.obj} got on {P} nerves |
        smoke rose from the burned field | two men quarreled over {T.obj} | someone kept hammering on the wall |
        trash was piled up at {T.place} | the stupid machine had jammed again | insults flew back and forth |
        the line did not move at all | a rude crowd blocked the way | somebody had kicked {T.obj} to bits"""),
    "cause": links("""
        {F} stole the {X} => the stolen {X} | {F} broke the {X} on purpose => the broken {X} |
        {F} laughed in {P} face => that mean laugh | someone cut in front of {O} in the line => the rude stranger |
        {F} blamed {O} for everything => those false words | {F} lied to {O} again => the lies of {F} |
        the boss refused to pay {O} => the unpaid wages | {F} insulted {P} family => the insult |
        somebody spat on {P} shoes => the spit | {F} read {P} secret letters => the opened letters |
        they cheated {O} out of the prize => the cheats | {F} ruined the {X} and just grinned => the ruined {X} |
        {F} kicked {P} dog => the poor dog | the neighbor cut down {P} tree => the stump |
        {F} sold the {X} behind {P} back => the sold {X} | {s} was thrown out for no reason => the insult |
        {F} broke the promise => the broken promise | a driver splashed mud over {O} => the mud |
        {F} took all the credit => the stolen credit | the clerk sent {O} away for the third time => the clerk"""),
    "mood": phrases("""
        with clenched teeth | with a red face | swearing all the while | with a curse | banging everything around |
        as if {s} wanted to break it | with flashing eyes | cursing the {T.role} | with {P} fists shut tight |
        muttering about revenge | with a growl | kicking everything in {P} way | glaring at {F} |
        like a bull in a ring"""),
    "tint": phrases("stupid | useless | rotten | ruined | cursed | awful | damned | wretched"),
    "end": phrases("""
        {s} never spoke to {F} again | {s} swore that someone would pay | after that, there was war between them |
        {s} was still shouting when night came | the door stayed shut for good |
        {s} went to bed with {P} fists still closed | {s} wrote a long list of enemies |
        {s} burned every letter from {F} | nobody dared to speak to {O} | {s} planned how to get even"""),
    "pres": phrases("""
        my blood is boiling | I want to smash something | everyone gets on my nerves | I am sick of these fools |
        nobody treats me fairly | I could scream | I will get them back for this | do not push me any further |
        I slam every door | I am fed up with {F} | my fists are clenched | I hate how they treat me |
        {F} will pay for this | I want to shout at everyone | I have had enough of {T.place} |
        they all cheat and lie | I will not forgive {F} | this is an insult | I grind my teeth all day |
        I kick everything in my way | stop wasting my time | I cannot stand that stupid {T.thing}"""),
    "like": phrases("""
        a kettle about to burst | a bull in a ring | a storm at sea | a dog on a chain | a fire in dry grass |
        a hornet in a jar | a cannon about to fire"""),
}

AFRAID = {
    "adj": phrases(
        "afraid | scared | frightened | terrified | nervous | anxious | worried | fearful | panicked | uneasy"
    ),
    "noun": phrases("fear | terror | dread | panic | worry | horror"),
    "adv": phrases("fearfully | nervously | anxiously | timidly | uneasily"),
    "vp": phrases("""
        hid under the bed | trembled from head to toe | screamed for help | ran without looking back |
        locked every door | held {P} breath | jumped at every sound | backed away slowly |
        crouched behind {T.obj} | could not move | looked over {P} shoulder | clung to {F} | checked the lock again |
        begged {F} not to go | froze on the spot | fled into the dark | covered {P} eyes | prayed for the morning |
        pulled the blanket over {P} head | dropped {T.obj} and ran | listened at the door | turned pale |
        reached for the light | stepped back from {T.obj} | kept away from the window | hid behind {F} |
        called for {F} in the dark | pushed a chair against the door | bit {P} nails | peeked around the corner |
        stood with {P} back to the wall | gasped and pointed at {T.obj} | crawled under the table |
        held the knife with both hands | counted the steps outside | shut {P} eyes and waited"""),
    "body": phrases("""
        {P} heart raced | {P} hands shook | a cold shiver ran down {P} back | {P} mouth went dry |
        {P} knees were weak | {P} hair stood on end | sweat ran down {P} face | {P} stomach turned to ice |
        {P} breath came in short gasps | {P} legs would not obey | the blood drained from {P} face |
        {P} teeth chattered"""),
    "say": phrases(
        "whispered in terror | stammered | screamed | gasped | said in a shaking voice | shrieked"
    ),
    "line": phrases("""
        Did you hear that noise? | Something is out there. | Please do not leave me in the dark! | Run! |
        We are not safe here. | What if it comes back? | I cannot look. | Help me, somebody! | It is watching us. |
        Lock the door, quick! | I have a terrible feeling about this. | Stay close to me. | Who is there? |
        Do not open that door! | I saw it move. | We have to get out of here! | It is right behind you! |
        Turn on the light, please. | There is someone in the house. | Do not make a sound. |
        What was that shadow? | They will find us. | I do not want to die. | Hold my hand, {F}."""),
    "world": phrases("""
        dark shadows crept over {T.place} | something scratched at the door | the lights at {T.place} went out |
        a wolf howled in the distance | the floor creaked upstairs | cold fog covered everything |
        strange eyes glowed in the dark | footsteps came closer and closer | even {T.obj} looked like a monster |
        thunder shook the walls | the door handle turned slowly | a black shape stood behind {T.obj} |
        something breathed in the dark | the candle went out | a scream came from {T.place} |
        the fog swallowed the road | the window was suddenly open | scratches ran across the wall"""),
    "cause": links("""
        a huge shadow moved behind {O} => the shadow | {s} heard a growl in the dark => the growl |
        a stranger with a knife followed {O} => the stranger | the ground began to shake => the shaking ground |
        {s} saw a face at the window => the face | {s} got lost as night fell => the dark woods |
        the {X} started to move by itself => the moving {X} | {F} vanished without a sound => what took {F} |
        a snake slid over {P} foot => the snake | someone was breathing behind the wall => the breathing |
        the doctor had bad news to tell => the illness | a cold hand touched {P} neck => the cold hand |
        {s} heard steps on the empty stairs => the steps | the door locked behind {O} => the locked door |
        a wolf stood at {T.place} => the wolf | the flood was coming closer => the flood |
        {s} found blood on the {X} => the blood | the phone rang, but nobody spoke => the silent call |
        {s} smelled smoke in the night => the smoke | the bridge cracked under {O} => the fall"""),
    "mood": phrases("""
        with shaking hands | with one eye on the door | looking over {P} shoulder | with a racing heart |
        on tiptoe | without making a sound | jumping at every noise | with {P} back to the wall |
        holding {P} breath | as if something were watching | close to {F} | trembling all over |
        ready to run | like a mouse before a cat"""),
    "tint": phrases("dark | strange | shadowy | creaking | black | haunted | eerie | bloody"),
    "end": phrases("""
        {s} did not sleep at all that night | {s} never went near that place again |
        {s} kept a light on every night | something still scratched at the door |
        {s} lay awake and listened until dawn | nobody knew what was out there | {s} moved away the next day |
        {s} still jumped at every sound | the thing in the dark was never found | {s} locked the door three times"""),
    "pres": phrases("""
        my hands are shaking | something terrible is going to happen | I hear noises in the dark |
        I cannot sleep at night | I keep looking over my shoulder | I want to hide under the bed |
        my heart is racing | danger is everywhere | I lock the door three times | someone is following me |
        I do not dare to go out | I see shadows at the window | what if they find me | I jump at every sound |
        my knees feel weak | I keep the light on all night | I do not want to be alone with {T.obj} |
        something is hiding at {T.place} | I hold my breath and listen | please stay close to me |
        I dread the night | my mouth is dry"""),
    "like": phrases("""
        a mouse before a cat | a leaf in a storm | a deer that hears a gun | a child in the dark |
        a rabbit in a trap | a swimmer who sees a shark | a bird near a snake"""),
}

CALM = {
    "adj": phrases(
        "calm | peaceful | relaxed | serene | untroubled | at ease | content | composed | rested | tranquil"
    ),
    "noun": phrases("peace | calm | stillness | calmness | ease | serenity"),
    "adv": phrases("calmly | peacefully | serenely | restfully | unhurriedly"),
    "vp": phrases("""
        breathed in slowly | closed {P} eyes and rested | sipped a cup of warm tea | watched the clouds drift by |
        sat still for a long while | stretched out on the grass | listened to the soft wind | took {P} time |
        let every thought float away | strolled with no hurry | leaned back in the chair | nodded slowly |
        read a page and then another | folded {P} hands in {P} lap | lay in the warm bath | dozed in the shade |
        rocked gently in the hammock | waited without a worry | let {P} shoulders drop | watched the snow fall |
        listened to the rain on the roof | stirred {P} tea slowly | put {P} feet up | took a long slow breath |
        rested {P} head on a cushion | gazed at the still water | walked barefoot through the grass |
        let the minutes pass | sat in silence with {F} | petted the sleeping cat | lay down under a tree |
        smoothed the soft blanket | followed a cloud with {P} eyes | set {T.obj} down and rested |
        listened to {P} own breath | floated on {P} back in the lake"""),
    "body": phrases("""
        {P} breath was slow and even | {P} mind was clear | {P} shoulders were loose | {P} hands lay still |
        a soft warmth filled {P} body | {P} thoughts were quiet | {P} pulse was slow | {P} brow was smooth |
        {P} eyes were half closed | {P} limbs felt pleasantly heavy | {P} breathing slowed down |
        every muscle in {P} body let go"""),
    "say": phrases("murmured | said softly | said in an even voice | said slowly | breathed | said gently"),
    "line": phrases("""
        There is no hurry. | All is well. | Let us sit here for a while. | Listen to how quiet it is. |
        Everything comes in its own time. | Take a slow breath. | We can rest now. | It will be all right. |
        Let it go. | I have all I need. | The tea is just right. | No need to worry. | We have all the time we need. |
        Let the world go by. | One thing at a time. | Just close your eyes. | I could stay here for hours. |
        How soft the light is. | It does not have to be today. | Sit down and rest, {F}. |
        Let us watch the clouds. | Slowly, there is time. | What a quiet evening. | The rest can wait."""),
    "world": phrases("""
        the water lay still near {T.place} | a soft breeze moved the leaves | {T.place} was quiet and still |
        the moon hung low and silver | snow fell without a sound | a cat slept in a patch of sun |
        the clock ticked slowly | gentle waves came and went | even {T.obj} seemed at rest |
        a thin line of smoke rose from the chimney | warm light lay on {T.obj} | the rain whispered on the roof |
        not a leaf stirred at {T.place} | the fire burned low and warm | mist rested over the fields |
        a slow river ran past {T.place} | the whole house was asleep | far away a cow bell rang softly"""),
    "cause": links("""
        there was nothing left to do that day => the free afternoon | {s} had the day to {R} => the free day |
        the work was done and the {X} was put away => the finished work | the storm had passed => the clear sky |
        {F} brought {O} a blanket and some tea => the warm tea | {s} found a soft place to sit => the soft seat |
        the noise of the day faded away => the silence | {s} took a long slow walk => the slow walk |
        {s} sat beside the {X} without a word => the {X} | the evening came slowly => the soft evening |
        {F} sat next to {O} and neither had to speak => the company of {F} | {s} put down {P} bag => the long rest |
        the snow had made everything quiet => the snow | the last guest had gone home => the quiet house |
        {s} lay down in the warm grass => the warm grass | {s} slept well for nine hours => the long sleep |
        the bath was warm and ready => the warm bath | {s} let the boat drift => the drifting boat |
        the baby fell asleep at last => the sleeping baby | {s} had no plans at all => the slow day"""),
    "mood": phrases("""
        without any hurry | at a slow pace | with a quiet mind | one breath at a time | in the soft light |
        with slow and even steps | as if time stood still | with {P} eyes half closed | in no rush at all |
        between two sips of tea | in the mild evening air | in comfortable silence | taking {P} time |
        like a cat in the sun"""),
    "tint": phrases("still | soft | mild | slow | warm | smooth | sleepy | restful"),
    "end": phrases("""
        {s} slept deeply that night | the evening went on, slow and quiet | there was nothing more to wish for |
        {s} let the day go without regret | after that, all was still | {s} rested until the stars came out |
        the tea was still warm | {s} fell asleep to the sound of the rain | nobody had to hurry anymore |
        the lake lay smooth until morning"""),
    "pres": phrases("""
        my mind is clear and still | I breathe slowly | there is no hurry at all | I take one thing at a time |
        everything is quiet inside me | I rest in the shade and listen | nothing troubles me | I let it all go |
        I sip my tea and watch the clouds | I let every worry drift away | my shoulders are loose |
        I could sit here for hours | I have all I need | I listen to the soft rain | time moves slowly here |
        I lie in the grass and rest | my thoughts float by like clouds | I am in no rush |
        I sit beside {T.obj} in silence | {T.place} is quiet and still | I slept long and deeply |
        the world can wait"""),
    "like": phrases("""
        a lake at dawn | a cat in the sun | a slow river | snow in the night | a boat in a quiet bay |
        moss under a tree | an old clock"""),
}

EMOTIONS: dict[str, dict] = {"happy": HAPPY, "sad": SAD, "angry": ANGRY, "afraid": AFRAID, "calm": CALM}

COMFORT: dict[str, tuple[str, ...]] = {
    "happy": phrases("""I am glad to hear it. | Congratulations! | Enjoy it! | You earned it. | What good luck! |
        Tell me all about it."""),
    "sad": phrases("""I am so sorry. | That is a great loss. | I am here for you. | Take all the time you need. |
        It is all right to cry. | You are not alone."""),
    "angry": phrases("""That was not fair to you. | Anyone would be upset. | Take a step back before you act. |
        You had every right to expect better. | Count to ten first."""),
    "afraid": phrases("""You are safe here. | Stay close to people you trust. | Keep a light on. | I will stay with you. |
        It will pass. | Call someone you trust."""),
    "calm": phrases("""That sounds restful. | Enjoy the quiet. | Good, take your time. | Rest as long as you like. |
        You have earned the rest."""),
}
